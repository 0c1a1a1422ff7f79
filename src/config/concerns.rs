//! What can be set, a list for each concern: name, default, variable and help of every setting.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;

use serde::Deserialize;

use super::value::{
    Age, ByteSize, Devices, Endpoint, LogFormat, Names, OnOff, OptionalPath, Origins, Seconds, Spelled, Subnets,
};
use crate::domain::blob_location::BlobLocation;
use crate::domain::database::DatabasePlace;
use crate::domain::quota::{Quota, TenantResource};
use crate::domain::retention::Rules;
use crate::settings::Device;

/// A flag's help: what it sets, and what holds without it.
fn help(about: &[&str], variable: &str, default: &impl Spelled) -> String {
    let about = about.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    format!("{} [env: {variable}] [default: {}]", about.trim_end_matches('.'), default.written())
}

/// Declares a concern twice from one list: as settings, and as options that a flag, a variable or a file may set.
macro_rules! concern {
    ($(#[$about:meta])* $name:ident, $options:ident {
        $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr, $variable:literal;)+
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Deserialize, clap::Args)]
        #[serde(default, deny_unknown_fields)]
        pub struct $options {
            $(
                $(#[doc = $doc])+
                #[arg(long, env = $variable, hide_env = true, help = help(&[$($doc),+], $variable, &$name::default().$field))]
                pub $field: Option<$type>,
            )+
        }

        impl $options {
            pub(super) fn or(self, file: Self) -> $name {
                let default = $name::default();
                $name { $($field: self.$field.or(file.$field).unwrap_or(default.$field),)+ }
            }
        }
    };
}

concern! {
    /// `[server]`: the listening socket.
    Server, ServerOptions {
        /// Address and port to listen on; port 0 lets the system choose. Beyond loopback an API key is required.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080)), "ENGRAFT_LISTEN";
        /// Host names that the server answers for, separated by commas, beside those of loopback; pages of these hosts may use it.
        /// Without any, a server that others reach answers for every name.
        allow_host: Names = Names(Vec::new()), "ENGRAFT_ALLOW_HOST";
        /// Origins of pages elsewhere that may use the API from a browser (CORS), separated by commas, as in `https://ui.example`. They send
        /// a key themselves; a server without keys trusts them with everything.
        allow_origin: Origins = Origins(Vec::new()), "ENGRAFT_ALLOW_ORIGIN";
        /// A PEM file with the server's certificate and those that lead to a known authority: it speaks HTTPS then. Looked at every minute, so
        /// that a renewed one needs no restart.
        tls_cert: OptionalPath = OptionalPath(None), "ENGRAFT_TLS_CERT";
        /// A PEM file with the certificate's private key.
        tls_key: OptionalPath = OptionalPath(None), "ENGRAFT_TLS_KEY";
        /// Seconds within which a client must have sent the headers of a request.
        header_timeout: Seconds = Seconds::new(15), "ENGRAFT_HEADER_TIMEOUT";
        /// Seconds without a byte of a request's or an answer's body after which the client is cut off.
        body_idle_timeout: Seconds = Seconds::new(30), "ENGRAFT_BODY_IDLE_TIMEOUT";
        /// Bytes per second that an upload must bring, on average over `body_idle_timeout`; slower clients are cut off.
        min_upload_rate: ByteSize = ByteSize(1 << 10), "ENGRAFT_MIN_UPLOAD_RATE";
        /// Seconds after which a connection without a request is closed; of HTTP/1 at the latest after `header_timeout`.
        idle_timeout: Seconds = Seconds::new(60), "ENGRAFT_IDLE_TIMEOUT";
        /// Connections at the same time; more are closed at once. Open files may allow fewer.
        max_connections: NonZero<u32> = NonZero::new(4096).unwrap_or(NonZero::<u32>::MIN), "ENGRAFT_MAX_CONNECTIONS";
        /// Largest headers of a request, all of them together.
        max_header_bytes: ByteSize = ByteSize(256 << 10), "ENGRAFT_MAX_HEADER_BYTES";
        /// Seconds that running requests and jobs get to end after SIGTERM.
        drain_timeout: Seconds = Seconds::new(30), "ENGRAFT_DRAIN_TIMEOUT";
    }
}

concern! {
    /// `[storage]`: where everything is kept.
    Storage, StorageOptions {
        /// Folder of the database, the blobs and unfinished uploads; made when absent.
        data_dir: PathBuf = PathBuf::from("engraft-data"), "ENGRAFT_DATA_DIR";
        /// The database: `sqlite:PATH`, or `postgres://user@host/database` for servers and workers on several machines. Without one SQLite in the
        /// data directory. A password may come from `PGPASSWORD`.
        database: DatabasePlace = DatabasePlace::DataDir, "ENGRAFT_DATABASE";
        /// Where checkpoints, datasets and results are kept: `file:DIR`, another folder, or `s3://BUCKET/PREFIX`, a bucket. Credentials, region
        /// and endpoint of a bucket are those of AWS's clients (`AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, `AWS_ENDPOINT_URL` and so on).
        blobs: BlobLocation = BlobLocation::DataDir, "ENGRAFT_BLOBS";
        /// Local copies of what lies in a bucket: bytes of all of them together, as in 20GiB. Those go first that nobody has used for longest.
        cache_size: ByteSize = ByteSize(20 << 30), "ENGRAFT_CACHE_SIZE";
        /// Whether clients get models from the bucket itself, by addresses that are signed for them (`on` or `off`).
        presign: OnOff = OnOff(false), "ENGRAFT_PRESIGN";
        /// Free space that uploads and jobs leave on the disk.
        keep_free: ByteSize = ByteSize(256 << 20), "ENGRAFT_KEEP_FREE";
        /// Seconds that files which nobody seems to need stay in the folder `trash` before they are removed.
        trash: Seconds = Seconds::new(7 * 24 * 3600), "ENGRAFT_TRASH";
    }
}

concern! {
    /// `[limits]`: what clients may request.
    RequestLimits, LimitsOptions {
        /// Largest checkpoint.
        max_checkpoint: ByteSize = ByteSize(64 << 30), "ENGRAFT_MAX_CHECKPOINT";
        /// Largest dataset.
        max_dataset: ByteSize = ByteSize(64 << 30), "ENGRAFT_MAX_DATASET";
        /// Largest JSON body.
        max_json: ByteSize = ByteSize(1 << 20), "ENGRAFT_MAX_JSON";
        /// Seconds that an interrupted upload can be resumed.
        upload_expiry: Seconds = Seconds::new(24 * 3600), "ENGRAFT_UPLOAD_EXPIRY";
    }
}

concern! {
    /// `[outbound]`: what the server requests from others by itself, at addresses that its tenants name.
    OutboundSettings, OutboundOptions {
        /// Networks that it may reach beside the public internet, as in `10.0.0.0/8,127.0.0.1`: with webhooks and imports tenants have it
        /// send requests there.
        allow_address: Subnets = Subnets(Vec::new()), "ENGRAFT_ALLOW_ADDRESS";
        /// The Hugging Face Hub that imports of `hf://` fetch from; without one the public one.
        hub_endpoint: Endpoint = Endpoint(None), "ENGRAFT_HUB_ENDPOINT";
        /// The service that imports of `s3://` fetch from; without one that of AWS.
        s3_endpoint: Endpoint = Endpoint(None), "ENGRAFT_S3_ENDPOINT";
        /// Buckets whose objects every tenant may import with the server's own credentials (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
        /// `AWS_SESSION_TOKEN`, `AWS_REGION`). Of other buckets only public objects are fetched.
        s3_buckets: Names = Names(Vec::new()), "ENGRAFT_S3_BUCKETS";
    }
}

concern! {
    /// `[workers]`: who computes.
    WorkerSettings, WorkersOptions {
        /// Jobs that this process runs at the same time on the processor; 0 leaves them to `engraft worker` processes.
        workers: usize = 1, "ENGRAFT_WORKERS";
        /// Where the workers compute: `auto`, `cpu`, `cuda` (every NVIDIA GPU, one job at a time on each) or `cuda:N` (one of them).
        device: Device = Device::Auto, "ENGRAFT_DEVICE";
        /// Devices that workers offer who are only started when jobs wait for them, as in `cpu,cuda`: jobs may request these while no worker is
        /// there.
        expect_device: Devices = Devices(Vec::new()), "ENGRAFT_EXPECT_DEVICE";
        /// Memory of its GPU that each job may take, as in 40GiB; one that needs more fails with `out_of_memory`. 0 sets no limit.
        gpu_memory_limit: ByteSize = ByteSize(0), "ENGRAFT_GPU_MEMORY_LIMIT";
        /// Seconds after which a job whose worker is silent goes to another one.
        lease: Seconds = Seconds::new(60), "ENGRAFT_LEASE";
        /// Seconds between two renewals of the lease.
        heartbeat: Seconds = Seconds::new(10), "ENGRAFT_HEARTBEAT";
        /// Threads that each job computes with; 0 shares the processor's among the workers.
        threads: usize = 0, "ENGRAFT_THREADS";
        /// Memory that each job may allocate, as in 8GiB; mapped files do not count. A job that needs more fails with
        /// `out_of_memory`. 0 sets no limit.
        memory_limit: ByteSize = ByteSize(0), "ENGRAFT_MEMORY_LIMIT";
        /// Disk space that each job may take while it runs, as in 20GiB: decoded data, checkpoints, results. A job that needs more
        /// fails with `scratch_limit_exceeded`. 0 sets no limit but `keep_free`.
        scratch_limit: ByteSize = ByteSize(0), "ENGRAFT_SCRATCH_LIMIT";
    }
}

concern! {
    /// `[tenants]`: what each tenant may take that has no limits of its own (`engraft tenants set`); 0 sets no limit.
    TenantDefaults, TenantsOptions {
        /// Bytes of its checkpoints, datasets, results and unfinished uploads.
        tenant_bytes: ByteSize = ByteSize(0), "ENGRAFT_TENANT_BYTES";
        /// Its checkpoints and datasets.
        tenant_files: usize = 0, "ENGRAFT_TENANT_FILES";
        /// Its unfinished uploads.
        tenant_uploads: usize = 1000, "ENGRAFT_TENANT_UPLOADS";
        /// Its jobs that wait.
        tenant_queued: usize = 10_000, "ENGRAFT_TENANT_QUEUED";
        /// Its jobs that run at the same time.
        tenant_running: usize = 0, "ENGRAFT_TENANT_RUNNING";
        /// Its requests in a second, on average over ten seconds.
        tenant_requests_per_second: usize = 0, "ENGRAFT_TENANT_REQUESTS_PER_SECOND";
        /// Seconds within an hour for which its datasets are read through after their upload; those that are left wait.
        tenant_reading_seconds: usize = 0, "ENGRAFT_TENANT_READING_SECONDS";
    }
}

impl TenantsOptions {
    /// The settings without a file.
    #[must_use]
    pub fn resolve(self) -> TenantDefaults {
        self.or(Self::default())
    }
}

impl TenantDefaults {
    /// What a tenant may take.
    #[must_use]
    pub fn quota(&self) -> Quota {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Quota::default()
            .with(TenantResource::Bytes, self.tenant_bytes.0)
            .with(TenantResource::Files, number(self.tenant_files))
            .with(TenantResource::Uploads, number(self.tenant_uploads))
            .with(TenantResource::Queued, number(self.tenant_queued))
            .with(TenantResource::Running, number(self.tenant_running))
            .with(TenantResource::RequestsPerSecond, number(self.tenant_requests_per_second))
            .with(TenantResource::ReadingSeconds, number(self.tenant_reading_seconds))
    }
}

concern! {
    /// `[retention]`: what is deleted after some time, once an hour. Pinned things stay.
    RetentionSettings, RetentionOptions {
        /// How long a job is kept after its end, with its results, as in `90d`.
        retain_jobs_for: Age = Age(None), "ENGRAFT_RETAIN_JOBS_FOR";
        /// Ended jobs of each tenant that are kept, the latest; 0 keeps all.
        retain_jobs: usize = 0, "ENGRAFT_RETAIN_JOBS";
        /// How long a checkpoint or dataset is kept that no job reads, from its upload on, as in `30d`.
        retain_files_for: Age = Age(None), "ENGRAFT_RETAIN_FILES_FOR";
        /// Bytes of each tenant that are kept: the oldest ended jobs go first, then files that no job reads; 0 keeps all.
        retain_bytes: ByteSize = ByteSize(0), "ENGRAFT_RETAIN_BYTES";
    }
}

impl RetentionOptions {
    /// The settings without a file.
    #[must_use]
    pub fn resolve(self) -> RetentionSettings {
        self.or(Self::default())
    }
}

impl RetentionSettings {
    /// What is kept.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules {
            jobs_for: self.retain_jobs_for.0,
            jobs: u64::try_from(self.retain_jobs).ok().filter(|most| *most > 0),
            files_for: self.retain_files_for.0,
            bytes: Some(self.retain_bytes.0).filter(|most| *most > 0),
        }
    }
}

concern! {
    /// `[validation]`: the child processes that read uploaded datasets.
    Validation, ValidationOptions {
        /// Datasets that are read through at the same time; of several, one tenant never has all.
        validators: usize = 2, "ENGRAFT_VALIDATORS";
        /// Scratch space that reading a dataset through may take.
        validation_disk: ByteSize = ByteSize(64 << 30), "ENGRAFT_VALIDATION_DISK";
        /// Seconds that reading a dataset through may take.
        validation_timeout: Seconds = Seconds::new(600), "ENGRAFT_VALIDATION_TIMEOUT";
        /// Memory that reading a dataset through may take.
        validation_memory: ByteSize = ByteSize(8 << 30), "ENGRAFT_VALIDATION_MEMORY";
    }
}

concern! {
    /// `[log]`: what goes to stderr.
    Log, LogOptions {
        /// Format of the log lines.
        log_format: LogFormat = LogFormat::Text, "ENGRAFT_LOG_FORMAT";
        /// What to log, as in `info` or `engraft=debug,info`.
        log: String = "info".to_owned(), "ENGRAFT_LOG";
    }
}
