// This is a program as a workflow engine would have it. Each request and each answer has the types
// that were generated from api/openapi.yaml.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import { Agent, fetch as undiciFetch } from "undici";
import type { components, paths } from "./api.js";

type Operation = components["schemas"]["Operation"];

const [socketPath, bundle] = process.argv.slice(2);
assert(socketPath && bundle, "usage: client SOCKET BUNDLE");
const dispatcher = new Agent({ connect: { socketPath } });
const overSocket = async (request: Request): Promise<Response> => {
  const body = request.body === null ? undefined : await request.text();
  const headers = Object.fromEntries(request.headers);
  const { method, url } = request;
  const answer = await undiciFetch(url, { method, headers, body, dispatcher });
  const answered = { status: answer.status, headers: Object.fromEntries(answer.headers) };
  return new Response(await answer.text() || null, answered);
};
const hobbes = createClient<paths>({ baseUrl: "http://node", fetch: overSocket });

async function finished(operation: Operation | undefined): Promise<Operation> {
  assert(operation, "no operation was begun");
  for (let i = 0; i < 200; ++i) {
    const { data } = await hobbes.GET("/v1/operations/{id}", {
      params: { path: { id: operation.operation } },
    });
    assert(data, "the operation is gone");
    if (data.state !== "running") return data;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`operation ${operation.operation} does not end`);
}

const { data: node } = await hobbes.GET("/v1/node");
assert(node, "no node");

const planned = await hobbes.POST("/v1/enclaves", {
  params: { query: { dryRun: true } },
  body: { id: "typed", bundle },
});
assert.equal(planned.response.status, 200, JSON.stringify(planned.error));

const made = await hobbes.POST("/v1/enclaves", { body: { id: "typed", bundle, start: true } });
const run = await finished(made.data as Operation | undefined);
assert.equal(run.state, "succeeded", JSON.stringify(run));

const { data: enclave } = await hobbes.GET("/v1/enclaves/{id}", {
  params: { path: { id: "typed" } },
});
assert.equal(enclave?.state, "running");
const { data: page } = await hobbes.GET("/v1/enclaves", {
  params: { query: { state: "running" } },
});
assert.deepEqual(page?.items.map((item) => item.id), ["typed"]);

const exec = await hobbes.POST("/v1/enclaves/{id}/exec", {
  params: { path: { id: "typed" } },
  body: { args: ["echo", "from inside"] },
});
const executed = await finished(exec.data);
assert.equal(executed.state, "succeeded", JSON.stringify(executed));
const output = await hobbes.GET("/v1/operations/{id}/logs", {
  params: { path: { id: executed.operation } },
  parseAs: "text",
});
assert.equal(output.data, "from inside\n");

const missing = await hobbes.GET("/v1/enclaves/{id}", { params: { path: { id: "nosuch" } } });
assert.equal(missing.error?.status, 404);
assert.equal(missing.error?.code, "not-found");

const gone = await finished((await hobbes.DELETE("/v1/enclaves/{id}", {
  params: { path: { id: "typed" }, query: { force: true } },
})).data);
assert.equal(gone.state, "succeeded", JSON.stringify(gone));

const document = await hobbes.GET("/openapi.yaml", { parseAs: "text" });
assert.equal(document.data, await readFile("openapi.yaml", "utf8"));
await dispatcher.close();
