// Fetches what a URL leads to into a file, and uploads that file to the storage.
'use strict';

const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const https = require('https');
const os = require('os');
const path = require('path');
const { pipeline } = require('stream');

const storage = require('./storage');

const client = storage.storage.get_instance();

// Some servers refuse requests that do not say who asks.
const USER_AGENT = 'sebs-lite-uploader/1.0';
const MAX_REDIRECTS = 10;

exports.handler = async function (event) {
  const { bucket, output } = event.bucket;
  const url = event.object.url;
  const name = path.posix.basename(new URL(url).pathname) || 'object';
  const address = url.startsWith('s3://') ? signed(url) : url;
  const folder = await fs.promises.mkdtemp(path.join(os.tmpdir(), 'uploader-'));
  try {
    const file = path.join(folder, 'object');
    const begin = process.hrtime.bigint();
    await fetchInto(file, address, MAX_REDIRECTS);
    const fetched = process.hrtime.bigint();
    const [key, uploaded] = client.upload(bucket, path.posix.join(output, name), file);
    await uploaded;
    const end = process.hrtime.bigint();
    const { size } = await fs.promises.stat(file);
    const fetchTime = Number(fetched - begin) / 1000;
    return {
      result: { bucket, url, key },
      measurement: {
        download_time: fetchTime,
        download_size: size,
        upload_time: Number(end - fetched) / 1000,
        upload_size: size,
        // To fetch is the work of this benchmark: its time counts here too, where SeBS has it.
        compute_time: fetchTime,
      },
    };
  } finally {
    await fs.promises.rm(folder, { recursive: true, force: true });
  }
};

function fetchInto(file, url, redirects) {
  const protocol = { 'http:': http, 'https:': https }[new URL(url).protocol];
  if (protocol === undefined) {
    throw new Error(`only http://, https:// and s3:// URLs can be fetched, not ${url}`);
  }
  return new Promise((resolve, reject) => {
    const request = protocol.get(url, { headers: { 'User-Agent': USER_AGENT } }, (answer) => {
      const { statusCode: status, headers } = answer;
      if (status >= 300 && status < 400 && headers.location && redirects > 0) {
        answer.resume();
        const next = new URL(headers.location, url).href;
        new Promise((begin) => begin(fetchInto(file, next, redirects - 1))).then(resolve, reject);
      } else if (status !== 200) {
        answer.resume();
        reject(new Error(`the URL was answered with ${status} ${answer.statusMessage}`));
      } else {
        pipeline(answer, fs.createWriteStream(file), (error) => (error ? reject(error) : resolve()));
      }
    });
    request.on('error', reject);
  });
}

// The storage's own URL of `s3://<bucket>/<key>`, with a signature (AWS, version 4) that lets it be read.
function signed(url) {
  const { host } = new URL(`http://${process.env.MINIO_ADDRESS}`);
  const now = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
  const region = process.env.SEBS_LITE_S3_REGION || 'us-east-1';
  const scope = [now.slice(0, 8), region, 's3', 'aws4_request'];
  const resource = '/' + url.slice('s3://'.length).split('/').map(encode).join('/');
  const query = [
    ['X-Amz-Algorithm', 'AWS4-HMAC-SHA256'],
    ['X-Amz-Credential', [process.env.MINIO_ACCESS_KEY, ...scope].join('/')],
    ['X-Amz-Date', now],
    ['X-Amz-Expires', '3600'],
    ['X-Amz-SignedHeaders', 'host'],
  ].map(([name, value]) => `${name}=${encode(value)}`).join('&');
  const request = ['GET', resource, query, `host:${host}`, '', 'host', 'UNSIGNED-PAYLOAD'].join('\n');
  const digest = crypto.createHash('sha256').update(request).digest('hex');
  const text = ['AWS4-HMAC-SHA256', now, scope.join('/'), digest].join('\n');
  let key = `AWS4${process.env.MINIO_SECRET_KEY}`;
  for (const part of [...scope, text]) key = crypto.createHmac('sha256', key).update(part).digest();
  return `http://${host}${resource}?${query}&X-Amz-Signature=${key.toString('hex')}`;
}

// As the signature wants it: `encodeURIComponent` leaves five more characters as they are.
function encode(text) {
  return encodeURIComponent(text).replace(/[!'()*]/g, (character) =>
    '%' + character.charCodeAt(0).toString(16).toUpperCase());
}
