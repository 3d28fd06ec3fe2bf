// Sleeps for as many seconds as the event says, which shows what an invocation costs without any work.
'use strict';

exports.handler = async function (event) {
  const seconds = event.sleep;
  const begin = process.hrtime.bigint();
  await new Promise((wake) => setTimeout(wake, seconds * 1000));
  const end = process.hrtime.bigint();
  return { result: seconds, measurement: { compute_time: Number(end - begin) / 1000 } };
};
