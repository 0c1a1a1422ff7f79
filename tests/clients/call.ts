// A fusion through the types that openapi-typescript makes: uploaded, planned, queued, awaited, reported.
import { readFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const [url, member] = process.argv.slice(2);
if (url === undefined || member === undefined) throw new Error("expected a server and a checkpoint");
const client = createClient<paths>({ baseUrl: url });

function got<T>(answer: { data?: T; error?: unknown }): T {
  if (answer.data === undefined) throw new Error(JSON.stringify(answer.error));
  return answer.data;
}

const bytes = await readFile(member);
for (const name of ["m2.safetensors", "m3.safetensors"]) {
  const answer = await fetch(`${url}/v1/checkpoints/${name}`, { method: "PUT", body: new Uint8Array(bytes) });
  if (!answer.ok) throw new Error(await answer.text());
}
const body: components["schemas"]["JobRequest"] = {
  members: ["m2.safetensors", "m3.safetensors"],
  method: { importance: "magnitude" },
  target: { width: 1 },
  labels: { client: "typescript", run: "7" },
};
const plan = got(await client.POST("/v1/jobs", { params: { query: { validate_only: true } }, body }));
if (!("parameters" in plan)) throw new Error("expected a plan");
console.log("planned:", plan.parameters?.fused, "parameters");
const queued = got(await client.POST("/v1/jobs", { body }));
if (!("state" in queued)) throw new Error("expected a job");
const path = { id: queued.id };
let job: components["schemas"]["JobView"] = queued;
while (["queued", "running", "cancelling"].includes(job.state)) {
  job = got(await client.GET("/v1/jobs/{id}", { params: { path, header: { Prefer: "wait=10" } } }));
}
if (job.state !== "succeeded") throw new Error(JSON.stringify(job.error));
const labelled = got(await client.GET("/v1/jobs", { params: { query: { label: ["client=typescript", "run=7"] } } }));
if (labelled.data.length !== 1 || labelled.data[0]?.id !== job.id) throw new Error(JSON.stringify(labelled));
const report = got(await client.GET("/v1/jobs/{id}/report", { params: { path } }));
const widths: number[] = report.layers.map((layer) => layer.width_after);
console.log("fused by", report.method.importance, "to widths", widths);
