//! Container images from Debian's packages, under the public names that manifests use, for machines without a
//! registry. Each is an OCI archive under `target/images/`, built once and again when its recipe changes.
//!
//! They are stand-ins: the program is the one that Debian has, whatever version the name says. Their entry points
//! (`entrypoints/`) honour the environment variables of the public images.

mod archive;
mod layers;
mod recipes;

use crate::{system, target};
use anyhow::{Context, Result, bail};
use recipes::{Content, RECIPES, Recipe};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// How many layers are made at the same time: each is mostly one busy `dpkg`.
const WORKERS: usize = 2;

/// Builds the named images (all, if none is named) and prints where each is.
pub(crate) fn run(names: &[String], list: bool) -> Result<()> {
    if list {
        for recipe in RECIPES {
            eprintln!("{}", recipe.name);
        }
        return Ok(());
    }
    system::need_root()?;
    system::install()?;
    let wanted: Vec<&str> = if names.is_empty() {
        RECIPES.iter().map(|r| r.name).collect()
    } else {
        names.iter().map(String::as_str).collect()
    };
    for path in build(&wanted)? {
        eprintln!("{}", path.display());
    }
    Ok(())
}

/// Builds what is not there yet, or not as its recipe says, and returns the archives, in the order asked for.
pub(crate) fn build(names: &[&str]) -> Result<Vec<PathBuf>> {
    let recipes: Vec<&Recipe> = names.iter().map(|name| recipe(name)).collect::<Result<_>>()?;
    std::fs::create_dir_all(folder())?;
    make_layers(recipes.iter().filter(|recipe| !is_current(recipe)).map(|recipe| recipe.content))?;
    recipes
        .into_iter()
        .map(|recipe| image(recipe).with_context(|| format!("build image {}", recipe.name)))
        .collect()
}

fn recipe(name: &str) -> Result<&'static Recipe> {
    RECIPES.iter().find(|recipe| recipe.name == name).with_context(|| {
        let known: Vec<&str> = RECIPES.iter().map(|r| r.name).collect();
        format!("no recipe for image {name:?}; there are: {}", known.join(", "))
    })
}

/// Makes the layers that are missing, a few at a time.
fn make_layers(contents: impl Iterator<Item = Content>) -> Result<()> {
    let mut missing: Vec<Content> = Vec::new();
    for content in contents {
        if !missing.contains(&content) && !layers::path(&content).is_file() {
            missing.push(content);
        }
    }
    // In the order asked for: who wants the largest first says so.
    let queue = std::sync::Mutex::new(missing.into_iter());
    let next = || queue.lock().map(|mut queue| queue.next()).unwrap_or(None);
    let work = || -> Result<()> {
        while let Some(content) = next() {
            layers::make(&content)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a worker that makes layers panicked"),
        })
    })
}

/// Where an image's archive is (or will be).
pub(crate) fn archive(name: &str) -> PathBuf {
    folder().join(format!("{}.tar", name.replace(['/', ':'], "_")))
}

/// Where the digest of the recipe lies from which the archive was made.
fn stamp(recipe: &Recipe) -> PathBuf {
    archive(recipe.name).with_extension("recipe")
}

fn is_current(recipe: &Recipe) -> bool {
    archive(recipe.name).is_file()
        && std::fs::read_to_string(stamp(recipe)).is_ok_and(|text| text == digest(recipe))
}

fn folder() -> PathBuf {
    target().join("images")
}

fn image(recipe: &Recipe) -> Result<PathBuf> {
    let archive = archive(recipe.name);
    if is_current(recipe) {
        return Ok(archive);
    }
    let mut tars = vec![layers::path(&recipe.content)];
    let files = tempfile::NamedTempFile::new_in(folder())?;
    if !recipe.files.is_empty() {
        layers::of_recipe(recipe, files.path())?;
        tars.push(files.path().to_path_buf());
    }
    eprintln!("image {}: packing", recipe.name);
    archive::write(recipe, &tars, &archive)?;
    std::fs::write(stamp(recipe), digest(recipe))?;
    Ok(archive)
}

/// What identifies a recipe, with the content of its entry point.
fn digest(recipe: &Recipe) -> String {
    hex(&Sha256::digest(format!("{recipe:?}")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
