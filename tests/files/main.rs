//! Files in and out: datasets, networks as JSON, the pipeline from files to files, commands.

mod beside;
mod checkpoints;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod controls;
mod corpus;
mod dataset_corpus;
mod dataset_jobs;
mod datasets;
mod fuse;
mod gpus;
mod graph_form;
mod onnx;
mod remote;
mod schemas;
mod signals;
mod tasks;
