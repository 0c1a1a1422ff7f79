//! engraft turns an ensemble of trained neural networks into one compact network.
//!
//! The method is Neuron Transplantation (Öz et al., ECML-PKDD 2024): concatenate the members,
//! prune the joint network back to the target size by keeping the most important neurons of all
//! members, recover by fine-tuning or distillation.
//!
//! The map, from the top down; imports only ever point downwards:
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`cli`] | the commands: `serve`, `worker`, `fuse`, `inspect`, `convert`, `demo`, those that use a server (`push`, `import`, `submit`, `pull`, …), `keys`, `openapi` |
//! | [`destinations`] | where a fused model goes when its job is done: the Hugging Face Hub, MLflow, TensorBoard |
//! | [`client`] | a server, seen by a program that uses it |
//! | [`app`] | the composition root: database, stores, router, workers |
//! | [`http`] | the API: one file per resource, problems, wire types |
//! | [`worker`] | claims jobs, renews leases, supervises the child process that computes; reads uploaded datasets through |
//! | [`outbound`] | what the server requests from others: calls of webhooks; which addresses it may reach |
//! | [`store`] | rows in SQLite, bytes in an object store |
//! | [`runtime`], [`config`] | how the program ends, what it logs, every setting |
//! | [`pipeline`] | what the child does: one resolved job in, artifacts out; no database |
//! | [`process`] | what that child and its supervisor say to each other, and the allocator that counts |
//! | [`report`] | a job's candidates and their measures, and many jobs side by side |
//! | [`plan`] | a fusion job as data: request, parser, resolved networks, plan, estimates |
//! | [`fusion`], [`train`], [`data`] | the mathematics and its inputs |
//! | [`exec`] | networks on devices: the seam, every operation as kernels, the CPU's engine |
//! | [`export`] | networks as files of other programs |
//! | [`tensors`], [`kernels`] | state dicts; the fast operations on plain slices |
//! | [`cost`] | sizes and counts that algorithms and estimates share |
//! | [`model`] | networks as data: graph, shapes, coupling groups, families, file headers |
//! | [`settings`] | what can be requested: plain types |
//! | [`domain`] | ids, clock, states, progress, limits: plain types without I/O |

pub mod app;
pub mod cli;
pub mod client;
pub mod config;
pub mod cost;
pub mod data;
pub mod destinations;
pub mod domain;
pub mod exec;
pub mod export;
pub mod fusion;
pub mod http;
pub mod kernels;
pub mod model;
pub mod outbound;
pub mod pipeline;
pub mod plan;
pub mod process;
pub mod report;
pub mod runtime;
pub mod settings;
pub mod store;
pub mod tensors;
pub mod train;
pub mod worker;
