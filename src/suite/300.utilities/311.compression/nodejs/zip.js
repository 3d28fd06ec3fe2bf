// Writes zip archives (PKWARE's APPNOTE), since Node.js has the compression but not the container.
'use strict';

const fs = require('fs');
const util = require('util');
const zlib = require('zlib');

const deflate = util.promisify(zlib.deflateRaw);

const VERSION_NEEDED = 20;
const NAMES_ARE_UTF8 = 0x0800;
const DEFLATED = 8;
// Beyond it, numbers no longer fit; the fields for larger archives are not written here.
const MAX_BYTES = 0xffffffff;
const MAX_FILES = 0xffff;

// Packs `files`, each with a `name` in the archive, into a new file `target`.
exports.pack = async function (target, files) {
  if (files.length > MAX_FILES) throw new Error(`${files.length} files are too many for one archive`);
  const archive = await fs.promises.open(target, 'w');
  try {
    const directory = [];
    let at = 0;
    const write = async (bytes) => {
      await archive.writeFile(bytes);
      at += bytes.length;
      if (at > MAX_BYTES) throw new Error('the archive is too large');
    };
    for (const { file, name } of files) {
      const content = await fs.promises.readFile(file);
      const packed = await deflate(content);
      const { mtime } = await fs.promises.stat(file);
      const shared = header(mtime, checksum(content), packed.length, content.length, Buffer.from(name));
      directory.push(central(shared, at, name));
      await write(Buffer.concat([signature(0x04034b50), shared, Buffer.from(name), packed]));
    }
    const begin = at;
    await write(Buffer.concat(directory));
    await write(end(files.length, at - begin, begin));
  } finally {
    await archive.close();
  }
};

// What is said of a file both before its content and in the directory at the archive's end.
function header(time, crc, packedBytes, bytes, name) {
  const fields = Buffer.alloc(26);
  fields.writeUInt16LE(VERSION_NEEDED, 0);
  fields.writeUInt16LE(NAMES_ARE_UTF8, 2);
  fields.writeUInt16LE(DEFLATED, 4);
  fields.writeUInt16LE((time.getHours() << 11) | (time.getMinutes() << 5) | (time.getSeconds() >> 1), 6);
  fields.writeUInt16LE(((time.getFullYear() - 1980) << 9) | ((time.getMonth() + 1) << 5) | time.getDate(), 8);
  fields.writeUInt32LE(crc, 10);
  fields.writeUInt32LE(packedBytes, 14);
  fields.writeUInt32LE(bytes, 18);
  fields.writeUInt16LE(name.length, 22);
  return fields;
}

function central(shared, at, name) {
  const madeBy = Buffer.alloc(2);
  madeBy.writeUInt16LE(VERSION_NEEDED);
  // No comment, first disk, no attributes; then where the file is.
  const rest = Buffer.alloc(14);
  rest.writeUInt32LE(at, 10);
  return Buffer.concat([signature(0x02014b50), madeBy, shared, rest, Buffer.from(name)]);
}

function end(files, directoryBytes, directoryAt) {
  const fields = Buffer.alloc(18);
  fields.writeUInt16LE(files, 4);
  fields.writeUInt16LE(files, 6);
  fields.writeUInt32LE(directoryBytes, 8);
  fields.writeUInt32LE(directoryAt, 12);
  return Buffer.concat([signature(0x06054b50), fields]);
}

function signature(number) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(number);
  return bytes;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

// Only the newest Node.js has one of its own.
function checksum(content) {
  if (zlib.crc32 !== undefined) return zlib.crc32(content);
  let crc = 0xffffffff;
  for (let index = 0; index < content.length; index++) {
    crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ content[index]) & 0xff];
  }
  return (crc ^ 0xffffffff) >>> 0;
}
