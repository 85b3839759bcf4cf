// How strongly a token is marked. There is a gap in the middle, so that text is readable on both sides of the change of its colour.

export const isHot = (strength: number): boolean => strength > 0.55;

/** Background strength in percent for a share of the maximum. */
export const heat = (strength: number): string =>
  `${Math.round(isHot(strength) ? 66 + (30 * (Math.min(strength, 1) - 0.55)) / 0.45 : 12 + (30 * Math.max(strength, 0)) / 0.55)}%`;
