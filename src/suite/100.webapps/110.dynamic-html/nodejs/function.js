// Renders a page with a table of random numbers from a template, on Node's own modules alone.
'use strict';

const fs = require('fs');
const path = require('path');

const TEMPLATE = path.join(__dirname, 'templates', 'draw.html');

exports.handler = async function (event) {
  const begin = process.hrtime.bigint();
  const rows = [];
  for (let draw = 1; draw <= event.random_len; draw++) {
    rows.push({ draw, number: Math.floor(Math.random() * 1000000) });
  }
  // Read and parsed in each invocation: that is part of the work which is measured.
  const template = await fs.promises.readFile(TEMPLATE, 'utf8');
  const page = render(template, {
    username: event.username,
    count: rows.length,
    drawn_at: new Date().toISOString(),
    rows,
  });
  const end = process.hrtime.bigint();
  return { result: page, measurement: { compute_time: Number(end - begin) / 1000 } };
};

// `{{name}}` is replaced by a value, escaped; `{{#name}}…{{/name}}` is repeated for each element of a list.
function render(template, values) {
  return template
    .replace(/\{\{#(\w+)\}\}([^]*?)\{\{\/\1\}\}/g, (_, name, body) =>
      values[name].map((element) => render(body, element)).join(''))
    .replace(/\{\{(\w+)\}\}/g, (_, name) => escape(String(values[name])));
}

const ENTITIES = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

function escape(text) {
  return text.replace(/[&<>"']/g, (character) => ENTITIES[character]);
}
