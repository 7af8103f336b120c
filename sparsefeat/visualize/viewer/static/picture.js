// The view as a PNG, with captions, markers and the legend's scale drawn into it.

/** Save what is seen; `texts` are { x, y, text, align }, `rings` { x, y, picked }, in CSS pixels. */
export function savePicture(stage, name, { texts, rings, scale }) {
  stage.render();
  const { canvas } = stage;
  const picture = document.createElement("canvas");
  picture.width = canvas.width;
  picture.height = canvas.height;
  const pen = picture.getContext("2d");
  pen.drawImage(canvas, 0, 0);
  const ratio = canvas.width / canvas.clientWidth;
  pen.scale(ratio, ratio);
  const style = getComputedStyle(document.documentElement);
  pen.fillStyle = style.getPropertyValue("--text");
  pen.strokeStyle = style.getPropertyValue("--text");
  const family = getComputedStyle(document.body).fontFamily;
  pen.font = `13px ${family}`;
  for (const { x, y, text, align } of texts) {
    pen.textAlign = align ?? "center";
    pen.fillText(text, x, y);
  }
  for (const { x, y, picked } of rings) {
    pen.lineWidth = picked ? 4 : 2;
    pen.beginPath();
    pen.arc(x, y, 6, 0, 2 * Math.PI);
    pen.stroke();
  }
  if (scale) {
    const [left, top, width] = [16, canvas.clientHeight - 44, 220];
    pen.drawImage(scale.canvas, left, top, width, 10);
    pen.textAlign = "left";
    pen.fillText(scale.low, left, top + 26);
    pen.textAlign = "right";
    pen.fillText(scale.high, left + width, top + 26);
    pen.textAlign = "left";
    pen.fillText(scale.name, left, top - 7);
  }
  return new Promise((resolve) => {
    picture.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${name}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      resolve(blob.size);
    }, "image/png");
  });
}
