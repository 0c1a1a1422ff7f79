// What networks are judged by, which depends on what they predict.

import { percent, short } from './format.js';

/** The measures in the order in which a task is judged by them: the first that a score has. */
const MEASURES = [
  { name: 'accuracy', title: 'Accuracy', share: true, higher: true },
  { name: 'label_accuracy', title: 'Label accuracy', share: true, higher: true },
  { name: 'rmse', title: 'RMSE', share: false, higher: false },
];

/** The measure of a score; the loss where it has no other. */
export function measureOf(score) {
  const found = MEASURES.find(({ name }) => score?.[name] !== null && score?.[name] !== undefined);
  return found ?? { name: 'loss', title: 'Loss', share: false, higher: false };
}

/** A value of a measure in words; `coarse` for axes. */
export function write(measure, value, coarse = false) {
  return measure.share ? percent(value, coarse ? 1 : 2) : short(value);
}

/**
 * A candidate of a report on the test split, or on the validation split where there is no test: its value, and an interval of one
 * standard error to both sides. Of shares that are right or wrong by example the error is that of a binomial; otherwise the report
 * has a 95 % interval, which is 1.96 standard errors to both sides.
 */
export function standing(candidate, examples) {
  const score = candidate.test ?? candidate.validation;
  if (!score) return null;
  const measure = measureOf(score);
  const value = score[measure.name];
  const count = candidate.test ? examples.test : examples.validation;
  if (candidate.interval) {
    const error = (candidate.interval[1] - candidate.interval[0]) / 2 / 1.96;
    return { measure, value, error };
  }
  if (measure.share && count) return { measure, value, error: Math.sqrt((value * (1 - value)) / count) };
  return { measure, value, error: measure.name === 'loss' ? candidate.loss_standard_error ?? 0 : 0 };
}
