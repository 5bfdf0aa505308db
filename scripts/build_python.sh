#!/usr/bin/env bash
# CPython from Debian, for the tests, where a system has no package of that version.
#
#   scripts/build_python.sh 3.14 /opt/python/3.14
#
# The mirror is the one that apt uses here; only the suite differs ($SUITE, else sid). What is built is the upstream
# tarball of the source package, without Debian's patches, which move site-packages; it takes two or three minutes.
# Where the mirror holds no sources of that suite, the binary packages are unpacked instead, with the suite's own
# C library beside them.
set -euo pipefail
umask 022

version=${1:?usage: $0 VERSION DIRECTORY, such as 3.14 /opt/python/3.14}
directory=$(realpath -m "${2:?usage: $0 VERSION DIRECTORY, such as 3.14 /opt/python/3.14}")
suite=${SUITE:-sid}

fail() {
  echo "$1" >&2
  exit 1
}

need() {
  local missing
  missing=$(dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' "$@" 2>/dev/null |
    awk '$2 == "ii" { print $1 }' | sort | comm -13 - <(printf '%s\n' "$@" | sort) | paste -sd ' ')
  [ -z "$missing" ] || fail "packages are missing: sudo apt-get install $missing"
}

# the main archive: its label tells it from the security archive, which has no sid
mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
  sed -n 's/^Debian|Debian|//p' | head -n 1)
[ -n "$mirror" ] || fail "apt has no list of a Debian mirror: sudo apt-get update (only Debian has this source package)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # apt's own user reads the lists
mkdir -p "$work"/lists/partial "$work"/cache/archives/partial "$work"/fetched "$work"/build "$work"/root
printf '%s\n' "deb $mirror $suite main" "deb-src $mirror $suite main" >"$work/sources.list"
options=(-o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
  -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root)

build() {
  need gcc make pkg-config xz-utils libbz2-dev libffi-dev liblzma-dev libsqlite3-dev libssl-dev uuid-dev zlib1g-dev
  tar -xf "$(find "$work/fetched" -name '*.orig.tar.*' ! -name '*.asc')" --strip-components 1 -C "$work/build"
  cd "$work/build"
  ./configure --quiet --prefix="$directory" --disable-test-modules --with-ensurepip=no
  make -s -j"${JOBS:-2}" >make.log 2>&1 || fail "$(tail -n 40 make.log)"
  make -s install >install.log 2>&1 || fail "$(tail -n 40 install.log)"
}

# The libraries come along, the loader among them: those of this system are older.
unpack() {
  need patchelf
  local packages package libraries
  packages=$(apt-cache "${options[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances "python$version" | grep -E "^(python$version|lib)" | sort -u)
  # shellcheck disable=SC2086  (one word a package)
  (cd "$work/fetched" && apt-get -q "${options[@]}" download $packages)
  for package in "$work"/fetched/*.deb; do
    dpkg-deb --extract "$package" "$work/root"
  done
  mkdir -p "$directory"
  cp -a "$work"/root/usr/. "$directory"
  libraries=$directory/lib/$(uname -m)-linux-gnu
  patchelf --force-rpath --set-rpath "$libraries" "$directory/bin/python$version"
  patchelf --set-interpreter "$(find "$libraries" -name 'ld-linux-*.so.*' | head -n 1)" "$directory/bin/python$version"
}

apt-get -q "${options[@]}" update
if (cd "$work/fetched" && apt-get -q "${options[@]}" source --download-only "python$version"); then
  build
else
  echo "no sources: taking the binary packages"
  unpack
fi
"$directory/bin/python$version" -c '
import bz2, ctypes, lzma, sqlite3, ssl, sys, venv, zlib
print(sys.version.split()[0], "in", sys.prefix)'
