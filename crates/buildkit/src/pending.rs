//! Parts of the builder that are on their way.

use silo_build::context::Tree;
use silo_build::{
    BuildError, BuildRequest, Builder, CacheRecord, Outcome, Progress, PruneOptions, Pruned,
};
use silo_types::{Error, ErrorKind};
use std::io::Write;
use std::sync::Arc;
pub(crate) trait Pending {
    async fn build(
        self: &Arc<Self>,
        request: BuildRequest,
        progress: Arc<dyn Progress>,
    ) -> Result<Outcome, BuildError>;
    fn disk_usage(&self) -> Result<Vec<CacheRecord>, Error> {
        Ok(Vec::new())
    }
    async fn prune(&self, _options: PruneOptions) -> Result<Pruned, Error> {
        Ok(Pruned::default())
    }
    fn export_docker(&self, _o: &Outcome, _n: &[String], _w: impl Write) -> Result<(), Error> {
        Err(Error::internal("pending"))
    }
    fn export_oci(&self, _o: &Outcome, _n: &[String], _w: impl Write) -> Result<(), Error> {
        Err(Error::internal("pending"))
    }
    fn export_tar(&self, _o: &Outcome, _w: impl Write) -> Result<(), Error> {
        Err(Error::internal("pending"))
    }
    fn files(&self, _o: &Outcome) -> Result<Tree, Error> {
        Err(Error::internal("pending"))
    }
}
impl Pending for Builder {
    async fn build(
        self: &Arc<Self>,
        request: BuildRequest,
        progress: Arc<dyn Progress>,
    ) -> Result<Outcome, BuildError> {
        use jiff::Timestamp;
        use silo_build::context::{ContextRef, Filter, Transfer};
        use silo_build::progress::{Event, Vertex};
        let mut n = 0;
        let mut vertex = |name: &str| {
            n += 1;
            let mut v = Vertex::new(
                silo_types::Digest::from_sha256(
                    <sha2::Sha256 as sha2::Digest>::digest(format!("{}{n}", request.id).as_bytes())
                        .into(),
                ),
                name,
            );
            v.started = Some(Timestamp::now());
            progress.event(Event::Vertex(v.clone()));
            v
        };
        if let silo_build::DockerfileSource::InContext { context: Some(c), path } =
            &request.dockerfile
        {
            let mut v = vertex("[internal] load build definition from Dockerfile");
            let t = Transfer { progress: &*progress, vertex: v.digest };
            c.tree(
                &Filter {
                    follow: vec![path.clone(), format!("{path}.dockerignore")],
                    exclude: vec![],
                },
                &t,
            )
            .await?;
            v.completed = Some(Timestamp::now());
            progress.event(Event::Vertex(v));
        }
        if let ContextRef::Files(c) = &request.context {
            let mut v = vertex("[internal] load build context");
            let t = Transfer { progress: &*progress, vertex: v.digest };
            c.tree(&Filter::default(), &t).await?;
            v.completed = Some(Timestamp::now());
            progress.event(Event::Vertex(v));
        }
        Err(BuildError::new(ErrorKind::NotImplemented, "pending"))
    }
}
