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
//! | [`cli`] | the commands: `serve`, `worker`, `fuse`, `inspect`, `demo`, `keys`, `openapi` |
//! | [`app`] | the composition root: database, stores, router, workers |
//! | [`http`] | the API: one file per resource, problems, wire types |
//! | [`worker`] | claims jobs, renews leases, supervises the child process that computes |
//! | [`validation`] | reads uploaded datasets through, in child processes |
//! | [`pipeline`] | what the child does: one resolved job in, artifacts out; no database |
//! | [`store`] | rows in SQLite, bytes in an object store |
//! | [`fusion`], [`train`], [`data`], [`report`] | the mathematics and its inputs and outputs |
//! | [`job`] | a fusion job as data: request, resolved request, plan, child protocol |
//! | [`model`] | networks as data: graph, shapes, coupling groups, families, file headers |
//! | [`tensors`], [`kernels`] | state dicts; the fast operations on plain slices |
//! | [`domain`] | ids, clock, states, limits: plain types without I/O |
//! | [`memory`] | the allocator that counts, and its limit |

pub mod app;
pub mod cli;
pub mod config;
pub mod cost;
pub mod data;
pub mod domain;
pub mod exec;
pub mod fusion;
pub mod http;
pub mod kernels;
pub mod model;
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
