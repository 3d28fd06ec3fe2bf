// Allocates exactly the memory that each step asks for, holds it, gives it back to the kernel, and tells when.
//
// What it returns is a ground truth for memory measurement: between `begin` and `end` of a step every page of its
// bytes is resident; for `allocation_us` before `begin` the pages are being touched, and `release_us` after `end` they
// are unmapped.
'use strict';

const v8 = require('v8');
const vm = require('vm');

const PAGE_BYTES = 4096;
// WebAssembly's memory grows by 64 KiB; what is not touched is not resident, so a step is exact to the page.
const BLOCK_BYTES = 65536;

// Without a collection on demand, memory would be given back when the engine likes.
v8.setFlagsFromString('--expose-gc');
const collect = vm.runInNewContext('gc');

exports.handler = async function (event) {
  const begin = process.hrtime.bigint();
  const steps = [];
  for (const step of event.steps) {
    const climbed = await climb(step.bytes, step.hold_ms);
    collect();
    // What the first found is unmapped by another thread, for which the second waits.
    collect();
    climbed.release_us = (Number(process.hrtime.bigint()) - climbed.end_monotonic_ns) / 1000;
    steps.push(climbed);
  }
  const end = process.hrtime.bigint();
  return {
    result: { page_bytes: PAGE_BYTES, steps },
    measurement: { compute_time: Number(end - begin) / 1000 },
  };
};

async function climb(bytes, holdMs) {
  const allocation = process.hrtime.bigint();
  const pages = allocate(bytes);
  const begin = process.hrtime.bigint();
  const beginEpochMs = Date.now();
  await new Promise((wake) => setTimeout(wake, holdMs));
  const end = process.hrtime.bigint();
  const endEpochMs = Date.now();
  // Reading it here keeps the memory alive until here.
  if (bytes > 0 && pages[0] !== 1) throw new Error('the memory was lost while it was held');
  return {
    bytes,
    hold_ms: holdMs,
    allocation_us: Number(begin - allocation) / 1000,
    begin_monotonic_ns: Number(begin),
    end_monotonic_ns: Number(end),
    begin_epoch_us: beginEpochMs * 1000,
    end_epoch_us: endEpochMs * 1000,
  };
}

// Not a `Buffer`: malloc keeps blocks that it once took from its heap, this memory is unmapped when collected.
function allocate(bytes) {
  const blocks = Math.ceil(bytes / BLOCK_BYTES);
  const memory = new WebAssembly.Memory({ initial: blocks, maximum: blocks });
  const pages = new Uint8Array(memory.buffer);
  for (let offset = 0; offset < bytes; offset += PAGE_BYTES) pages[offset] = 1;
  return pages;
}
