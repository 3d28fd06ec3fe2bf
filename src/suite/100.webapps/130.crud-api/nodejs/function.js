// Answers a list of requests to a shopping cart that is kept in a table.
'use strict';

const nosql = require('./nosql');

const client = nosql.nosql.get_instance();

const TABLE = 'shopping_cart';

exports.handler = async function (event) {
  const begin = process.hrtime.bigint();
  const results = [];
  // One after the other, since a request may read what the one before it wrote.
  for (const request of event.requests) results.push(await answer(request));
  const end = process.hrtime.bigint();
  return { result: results, measurement: { compute_time: Number(end - begin) / 1000 } };
};

async function answer({ route, path, body }) {
  const cart = ['cart_id', body.cart];
  if (route === 'PUT /cart') {
    const { product_id: product, name, price, quantity } = body;
    await client.insert(TABLE, cart, ['product_id', product], { name, price, quantity });
    return {};
  }
  if (route === 'GET /cart/{id}') {
    return await client.get(TABLE, cart, ['product_id', path.id]);
  }
  if (route === 'GET /cart') {
    return summary(await client.query(TABLE, cart, 'product_id'));
  }
  throw new Error(`there is no route ${route}`);
}

function summary(products) {
  const total = products.reduce((sum, { price, quantity }) => sum + price * quantity, 0);
  const pieces = products.reduce((sum, { quantity }) => sum + quantity, 0);
  return {
    products: products.map(({ name }) => name),
    total_cost: total,
    avg_price: pieces > 0 ? total / pieces : 0,
  };
}
