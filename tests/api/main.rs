//! The API over HTTP, on a server in this process.

#[path = "../common/mod.rs"]
mod common;
mod comparisons;
mod connections;
mod datasets;
mod description;
mod following;
mod hostile;
mod imports;
mod jobs;
mod journey;
mod moving;
mod networks;
mod object_storage;
mod pages;
mod postgres;
mod reference;
mod service;
mod shards;
mod slow;
mod tasks;
mod tenants;
mod tls;
mod tus;
mod upkeep;
mod uploads;
mod webhooks;
mod workers;
