// The training of a job, epoch by epoch.

import { h } from './dom.js';
import { card } from './ui.js';
import { lineChart } from './chart.js';
import { measureOf, write } from './measures.js';
import { percent, short } from './format.js';

/** The curves of loss and measure, and the same as a table; nothing where there was no training. */
export function curves(unordered, best) {
  const epochs = [...unordered].sort((a, b) => a.epoch - b.epoch);
  if (epochs.length === 0) return null;
  const line = (name, index, value, dashed = false) => ({
    name, index, dashed,
    points: epochs.map((epoch) => ({ x: epoch.epoch, y: value(epoch) })).filter(({ y }) => y !== null && y !== undefined),
  });
  const measure = measureOf(epochs[0].validation ?? epochs[0].test);
  const quality = [
    measure.name === 'accuracy' ? line('training', 6, (epoch) => epoch.train_accuracy, true) : null,
    line('validation', 1, (epoch) => epoch.validation?.[measure.name]),
    line('test', 2, (epoch) => epoch.test?.[measure.name]),
  ].filter(Boolean);
  const losses = [line('validation', 1, (epoch) => epoch.validation?.loss), line('test', 2, (epoch) => epoch.test?.loss)];
  const objective = [line('objective', 6, (epoch) => epoch.train_loss, true)];
  const mark = best ?? null;
  const chart = (title, series, format, fromZero = false) => (series.some(({ points }) => points.length) ? lineChart(title, series, { format, mark, fromZero }) : null);
  return card('Training', [
    h('div.charts', {},
      measure.name === 'loss' ? null : chart(measure.title, quality, (value, coarse) => write(measure, value, coarse)),
      chart('Loss', losses, short),
      chart('Training objective', objective, short),
      chart('Learning rate', [line('learning rate', 3, (epoch) => epoch.lr)], short, true)),
    h('details', {}, h('summary', {}, 'As a table'), table(epochs, measure)),
  ], { note: best === null || best === undefined ? null : `epoch ${best} is published` });
}

function table(epochs, measure) {
  const row = (epoch) => h('tr', {}, [
    epoch.epoch, short(epoch.train_loss), percent(epoch.train_accuracy),
    write(measure, epoch.validation?.[measure.name]), short(epoch.validation?.loss), write(measure, epoch.test?.[measure.name]), short(epoch.test?.loss), short(epoch.lr),
  ].map((value) => h('td.number', {}, value)));
  const titles = ['Epoch', 'Objective', 'Training', `Validation ${measure.title.toLowerCase()}`, 'Validation loss', `Test ${measure.title.toLowerCase()}`, 'Test loss', 'Learning rate'];
  return h('div.scroll', { tabindex: 0 }, h('table', {}, h('thead', {}, h('tr', {}, titles.map((title) => h('th.number', { scope: 'col' }, title)))), h('tbody', {}, epochs.map(row))));
}
