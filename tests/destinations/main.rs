//! Where fused models go: the commands against services that stand in for the Hugging Face Hub and for MLflow, over HTTP.

#[path = "../common/mod.rs"]
mod common;
mod hub;
mod hub_stand_in;
mod listening;
mod made;
mod mlflow;
mod mlflow_stand_in;
mod tensorboard;
