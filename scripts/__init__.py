"""Programs for developers: generators of pages, locks, pictures."""
