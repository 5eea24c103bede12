// One hue for each label of an intent, the same wherever the label is shown: bars, titles, members.
//
// Hues are decoration: every label is written out as well.

/** The hue of a label in degrees, by its place among the labels of its intent. */
export function hueOf(labels, label) {
  const at = labels.indexOf(label);
  return at < 0 ? null : Math.round((at * 360) / labels.length + 20) % 360;
}

/** Texts and lists of texts among an item's attributes, in their order, each with the name of its attribute. */
export function labelsOfItem(item) {
  const found = [];
  for (const [name, value] of Object.entries(item?.attributes ?? {})) {
    for (const label of Array.isArray(value) ? value : [value])
      if (typeof label === "string") found.push({ name, label });
  }
  return found;
}

/** The intent's label that describes an item best: the likeliest one of the first intent that knows any. */
export function leadingLabel(item, intents) {
  const own = labelsOfItem(item).map(({ label }) => label);
  for (const [head, labels] of Object.entries(intents ?? {})) {
    const known = own.filter((label) => label in labels);
    if (known.length) {
      const label = known.reduce((best, each) => (labels[each] > labels[best] ? each : best));
      return { head, label, hue: hueOf(Object.keys(labels), label) };
    }
  }
  return null;
}
