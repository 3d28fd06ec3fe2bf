// Packs all files below a folder of the storage into a zip archive, and uploads that.
'use strict';

const fs = require('fs');
const os = require('os');
const path = require('path');

const storage = require('./storage');
const zip = require('./zip');

const client = storage.storage.get_instance();

exports.handler = async function (event) {
  const { bucket, input, output } = event.bucket;
  const { key } = event.object;
  const prefix = path.posix.join(input, key);
  const folder = await fs.promises.mkdtemp(path.join(os.tmpdir(), 'compression-'));
  try {
    const begin = process.hrtime.bigint();
    // With its end, or a folder whose name only begins like this one's would come too.
    await client.downloadDirectory(bucket, `${prefix}/`, folder);
    const downloaded = process.hrtime.bigint();
    const source = path.join(folder, prefix);
    const files = await filesBelow(source);
    const sizes = await Promise.all(files.map(async (file) => (await fs.promises.stat(file)).size));
    const archive = path.join(folder, 'archive.zip');
    const computing = process.hrtime.bigint();
    await zip.pack(archive, files.map((file) => ({ file, name: path.relative(source, file) })));
    const computed = process.hrtime.bigint();
    const [stored, uploaded] = client.upload(bucket, path.posix.join(output, `${key}.zip`), archive);
    await uploaded;
    const end = process.hrtime.bigint();
    return {
      result: { bucket, key: stored },
      measurement: {
        download_time: Number(downloaded - begin) / 1000,
        download_size: sizes.reduce((sum, size) => sum + size, 0),
        upload_time: Number(end - computed) / 1000,
        upload_size: (await fs.promises.stat(archive)).size,
        compute_time: Number(computed - computing) / 1000,
      },
    };
  } finally {
    await fs.promises.rm(folder, { recursive: true, force: true });
  }
};

async function filesBelow(folder) {
  const files = [];
  for (const entry of await fs.promises.readdir(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) files.push(...await filesBelow(file));
    else files.push(file);
  }
  return files.sort();
}
