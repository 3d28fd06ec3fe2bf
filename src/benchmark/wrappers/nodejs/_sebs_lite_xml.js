// Reads the little XML that S3 answers with: elements, text, entities and CDATA; attributes are passed over.
"use strict";

const NAMED = new Map([["amp", "&"], ["lt", "<"], ["gt", ">"], ["quot", "\""], ["apos", "'"]]);

const TOKEN = [
  /<\?[^]*?\?>/, // An instruction.
  /<!--[^]*?-->/,
  /<!\[CDATA\[([^]*?)\]\]>/,
  /<(\/?)([^\s/>!?][^\s/>]*)(?:"[^"]*"|'[^']*'|[^"'>])*?(\/?)>/, // A tag.
  /([^<]+)/,
].map((part) => part.source).join("|");

class Element {
  constructor(name) {
    this.name = name;
    this.children = [];
    this.content = "";
  }

  // The children of that name.
  all(name) {
    return this.children.filter((child) => child.name === name);
  }

  // The text of the first child of that name; empty if there is none.
  text(name) {
    const [child] = this.all(name);
    return child ? child.content : "";
  }
}

// The root element of a document. Names are without their name space.
function parse(text) {
  const top = new Element("");
  const open = [top];
  const token = new RegExp(TOKEN, "y");
  while (token.lastIndex < text.length) {
    const at = token.lastIndex;
    const found = token.exec(text);
    if (!found) throw new SyntaxError(`no XML at character ${at} of an answer`);
    const [, data, slash, name, empty, plain] = found;
    const current = open[open.length - 1];
    if (data !== undefined) current.content += data;
    else if (plain !== undefined) current.content += decode(plain);
    else if (name !== undefined) step(open, name.slice(name.indexOf(":") + 1), slash === "/", empty === "/");
  }
  if (open.length !== 1 || top.children.length !== 1) throw new SyntaxError("an answer is no whole XML document");
  return top.children[0];
}

function step(open, name, isEnd, isEmpty) {
  const current = open[open.length - 1];
  if (isEnd) {
    if (open.length === 1 || current.name !== name) throw new SyntaxError(`\`</${name}>\` ends nothing in an answer`);
    open.pop();
    return;
  }
  const element = new Element(name);
  current.children.push(element);
  if (!isEmpty) open.push(element);
}

function decode(text) {
  // The line breaks of XML 1.0, section 2.11.
  return text.replace(/\r\n?/g, "\n").replace(/&(?:#x([0-9a-f]+)|#([0-9]+)|(\w+));/gi, (whole, hex, digits, name) => {
    if (name !== undefined) return NAMED.has(name) ? NAMED.get(name) : whole;
    return String.fromCodePoint(hex === undefined ? parseInt(digits, 10) : parseInt(hex, 16));
  });
}

function escape(text) {
  return text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
}

module.exports = { escape, parse };
