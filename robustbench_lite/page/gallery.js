// The adversarial examples, with the perturbation computed from the two images.
function showGallery() {
  const model = at("shown").value;
  const examples = state.board.gallery.filter((example) => !model || example.model === model);
  const shown = state.all ? examples : examples.slice(0, EXAMPLES);
  at("gallery").querySelector(".gallery").replaceChildren(...shown.map(picture));
  at("more").hidden = shown.length === examples.length;
  at("more").textContent = `Show all ${examples.length}`;
}

function picture(example) {
  const [from, to] = [className(example.label), className(example.to)];
  const source = (png) => `data:image/png;base64,${png}`;
  const image = make("img", { src: source(example.image), alt: `${from}, sample ${example.id}` });
  const fooled = `the same changed by ${short(example.size)}, which ${example.model} calls ${to}`;
  const adversarial = make("img", { src: source(example.adversarial), alt: fooled });
  const canvas = make("canvas", { role: "img", ariaLabel: "the perturbation" });
  magnify(image, adversarial, canvas);
  const how = `${example.trial}, size ${short(example.size)}, ${example.id}`;
  return make("figure", {},
    make("div", { className: "tiles" }, image, canvas, adversarial),
    make("figcaption", {}, make("strong", {}, `${from} \u2192 ${to}`), ` ${example.model}`,
      make("span", { className: "summary" }, how)));
}

async function magnify(image, adversarial, canvas) {
  await Promise.all([image.decode(), adversarial.decode()]);
  Object.assign(canvas, { width: image.naturalWidth, height: image.naturalHeight });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const [before, after] = [image, adversarial].map((picture) => {
    pen.drawImage(picture, 0, 0);
    return pen.getImageData(0, 0, canvas.width, canvas.height);
  });
  const delta = Array.from(after.data, (level, i) => level - before.data[i]);
  const gain = 127 / delta.reduce((most, change) => Math.max(most, Math.abs(change)), 1);
  after.data.forEach((_, i) => { after.data[i] = i % 4 === 3 ? 255 : 128 + gain * delta[i]; });
  pen.putImageData(after, 0, 0);
  canvas.ariaLabel = `the perturbation, magnified ${short(gain)} times`;
}
