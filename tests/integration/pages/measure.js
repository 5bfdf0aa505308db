// What a test asks a page in the browser. The answer is JSON in an attribute of the body.
const number = /[\d.]+/g;
const luminance = (colour) => {
  const [r, g, b] = colour.match(number).slice(0, 3).map((part) => {
    const share = part / 255;
    return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
// WCAG 2.2, contrast ratio
const contrast = (one, other) => {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
};
const behind = (element) => {
  const mark = element.matches("text.number") && element.parentNode.querySelector(".mark");
  if (mark) return getComputedStyle(mark).fill;
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (!/, 0\)$|transparent/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
const hasText = (element) =>
  [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
const texts = [...document.body.querySelectorAll("*")].filter(
  (element) => hasText(element) && !["SCRIPT", "STYLE", "title"].includes(element.tagName)
);
const faint = texts
  .map((element) => {
    const style = getComputedStyle(element);
    const colour = element instanceof SVGElement ? style.fill : style.color;
    return [element.tagName, element.textContent.slice(0, 30), contrast(colour, behind(element))];
  })
  .filter(([, , ratio]) => ratio < 4.5);
const shapes = [...document.querySelectorAll("rect.bar, .mark")];
const faintShapes = shapes
  .map((element) => {
    const style = getComputedStyle(element);
    const colour = element.matches(".mark") ? style.stroke : style.fill;
    return [element.getAttribute("class"), contrast(colour, behind(element.closest("figure")))];
  })
  .filter(([, ratio]) => ratio < 3);
const outside = [...document.querySelectorAll("svg text, p, li, dd, h1, h2, h3, pre")]
  .filter((element) => !element.closest(".wide, details:not([open])"))
  .map((element) => [element.textContent.slice(0, 30), element.getBoundingClientRect()])
  .filter(([, box]) => box.width && (box.left < -0.5 || box.right > innerWidth + 0.5))
  .map(([text]) => text);
const small = [...document.querySelectorAll("svg text")]
  .filter((element) => parseFloat(getComputedStyle(element).fontSize) < 12)
  .map((element) => element.textContent);
document.body.dataset.measured = JSON.stringify({
  width: innerWidth,
  scrolls: document.documentElement.scrollWidth,
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  texts: texts.length,
  faint,
  faintShapes,
  outside,
  small,
});
