/** Contrast of all texts of a page, as WCAG 2 counts it: an expression for the page. */

export interface Contrast {
  ratio: number;
  text: string;
  colours: string;
}

/** Contrasts of all elements that have text of their own and are shown, least first. */
export const CONTRAST: string = `(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const [r, g, b, a = 1] = numbers(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const own = (element) => [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data).join('').trim();
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const text = own(element);
    if (text === '' || !element.checkVisibility() || element.closest('script, noscript')) continue;
    const style = getComputedStyle(element);
    const front = numbers(element instanceof SVGElement ? style.fill : style.color);
    const back = behind(element);
    const [light, dark] = [luminance(front), luminance(back)].sort((one, other) => other - one);
    found.push({ ratio: (light + 0.05) / (dark + 0.05), text: text.slice(0, 60), colours: front + ' on ' + back });
  }
  return found.sort((one, other) => one.ratio - other.ratio);
})()`;
