//! Where the state of a benchmark is.

use std::path::Path;

use engraft::domain::database::DatabasePlace;
use engraft::domain::id::JobId;
use engraft::store::database::Demand;
use engraft::store::{Backend, Database};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::Result;

/// A data directory of its own, and a file in it or a schema on a server.
pub(crate) struct Place {
    folder: TempDir,
    schema: Option<Schema>,
}

struct Schema {
    server: String,
    name: String,
    place: String,
}

impl Place {
    pub(crate) async fn new(server: Option<&String>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let Some(server) = server else { return Ok(Self { folder, schema: None }) };
        let name = format!("bench_{}", JobId::new().to_string().trim_start_matches("job_"));
        let mut connection = PgConnection::connect(server).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {name}"))).execute(&mut connection).await?;
        let joint = if server.contains('?') { '&' } else { '?' };
        let place = format!("{server}{joint}options=-csearch_path%3D{name}");
        Ok(Self { folder, schema: Some(Schema { server: server.clone(), name, place }) })
    }

    /// Whether it is on a server.
    pub(crate) fn is_server(&self) -> bool {
        self.schema.is_some()
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.folder.path()
    }

    /// As `--database` takes it.
    pub(crate) fn database(&self) -> String {
        match &self.schema {
            Some(schema) => schema.place.clone(),
            None => format!("sqlite:{}", self.data_dir().join("engraft.db").display()),
        }
    }

    /// A handle of its own, as another process would have it.
    pub(crate) async fn open(&self) -> Result<Database> {
        let place: DatabasePlace = self.database().parse()?;
        let blobs = Backend::Folder(self.data_dir().join("blobs"));
        Ok(Database::open_for(Demand::Worker, &place, self.data_dir(), &blobs).await?)
    }

    /// Runs statements beside the program.
    pub(crate) async fn sql(&self, statements: String) -> Result<()> {
        let statements = sqlx::raw_sql(sqlx::AssertSqlSafe(statements));
        if let Some(schema) = &self.schema {
            statements.execute(&mut PgConnection::connect(&schema.place).await?).await?;
        } else {
            statements.execute(&mut SqliteConnection::connect(&self.database()).await?).await?;
        }
        Ok(())
    }

    pub(crate) async fn clear(self) -> Result<()> {
        if let Some(Schema { server, name, .. }) = &self.schema {
            let drop = format!("DROP SCHEMA {name} CASCADE");
            sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut PgConnection::connect(server).await?).await?;
        }
        Ok(())
    }
}
