//! `abide image`: the images that containers are made from.

use super::pulling::{self, Registries};
use anyhow::{Context, Result};
use runtime::ImageStore;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Which image store.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The server's data directory.
    #[arg(long, env = "ABIDE_DATA_DIR", default_value = "/var/lib/abide")]
    data_dir: PathBuf,
    /// The image store, if it is not DATA_DIR/images.
    #[arg(long)]
    image_store: Option<PathBuf>,
}

/// Commands on images.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Takes an OCI archive, a docker-archive or a root file system tar (each may be compressed).
    Import {
        /// The archive.
        file: PathBuf,
        /// The image's name, instead of the one in the archive; a root file system tar needs one.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Fetches an image from its registry. Pods use it as it is from then on, as an imported one.
    Pull {
        /// The image: nginx:1.27, registry.example:5000/team/app@sha256:…
        reference: String,
        /// Name and password for the registry (or the name alone: then the password is read from standard input).
        #[arg(long, value_name = "USER[:PASSWORD]", conflicts_with = "registry_config")]
        creds: Option<String>,
        #[command(flatten)]
        registries: Registries,
        #[command(flatten)]
        place: Place,
    },
    /// Lists the images.
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Removes an image's name, and the image with its last name.
    Remove {
        /// The name.
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

impl Place {
    fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    fn open(&self) -> Result<runtime::images::Images> {
        let folder = self.image_store.clone().unwrap_or_else(|| self.data_dir.join("images"));
        runtime::images::Images::open(&folder)
            .with_context(|| format!("open the image store {}", folder.display()))
    }
}

impl Command {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<ExitCode> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            match self {
                Command::Import { file, name, place } => {
                    let imported = place.open()?.import(&file, name.as_deref()).await?;
                    let lines: Vec<String> = imported
                        .iter()
                        .map(|image| format!("{}  {}\n", image.names.join(" "), image.id))
                        .collect();
                    Ok(super::print(&lines.concat()))
                }
                Command::Pull { reference, creds, registries, place } => {
                    let registries = registries.for_a_user(place.data_dir());
                    let images = place.open()?.with_registries(registries);
                    let image = pulling::pull(&images, &reference, creds.as_deref()).await?;
                    let name = image.exact_name(&reference);
                    Ok(super::print(&format!("{name}  {}\n", image.id)))
                }
                Command::List { place } => Ok(super::print(&table(&place.open()?.list().await?))),
                Command::Remove { name, place } => {
                    place.open()?.remove(&name).await?;
                    Ok(super::print(&format!("removed {name}\n")))
                }
            }
        })
    }
}

fn table(images: &[runtime::Image]) -> String {
    let mut rows: Vec<(String, String, String)> = images
        .iter()
        .flat_map(|image| {
            let id = image.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
            let size = format!("{:.1} MiB", image.size_bytes as f64 / 1_048_576.0);
            image.names.iter().map(move |name| (name.clone(), id.clone(), size.clone()))
        })
        .collect();
    rows.sort();
    let width = rows.iter().map(|row| row.0.len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:width$}  {:12}  SIZE\n", "NAME", "ID");
    for (name, id, size) in rows {
        text += &format!("{name:width$}  {id:12}  {size}\n");
    }
    text
}
