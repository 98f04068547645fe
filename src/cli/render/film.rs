//! `attnkit render film`.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::kinds::BackdropArgs;
use super::{DrawArgs, WORTH_A_BAR, say_notes};
use crate::cli::progress::Bar;
use crate::cli::query::target::check_directory;
use crate::cli::{Failure, Global, check_outside, interrupt, say, say_left_out, show, units};
use crate::draw::{Along, DrawError, Moving};
use crate::output;
use crate::query::Question;
use crate::render::FilmFormat;
use crate::store::Store;

/// A film: maps through the frames of their video, or one frame through the denoising steps or the blocks.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit render film maps.store --video v1 --token flower --frames-dir frames/v1 -o flower.gif
  attnkit render film maps.store --video v1 --video-file v1.mp4 -o words.mp4
                                      several words beside each other
  attnkit render film maps.store --video v1 --video-file v1.mp4 --together -o words.webm
                                      in one picture, each by its colour
  attnkit render film maps.store --video v1 --token flower --along steps --frame 7 -o steps.webp

gif, png (animated) and webp need nothing else; mp4 and webm, and reading a video, need ffmpeg. A directory that is
there, or a name that ends in /, gets the pictures one by one.")]
pub(super) struct FilmArgs {
    #[command(flatten)]
    common: DrawArgs,
    #[command(flatten)]
    backdrop: BackdropArgs,
    /// Through what it goes
    #[arg(long, value_enum, default_value_t)]
    along: Along,
    /// Along steps or blocks: the latent frame [default: the middle one]
    #[arg(long, value_name = "N")]
    frame: Option<usize>,
    /// How many frames the video has, if they are not there
    #[arg(
        long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000),
        conflicts_with_all = ["frames_dir", "video_file"]
    )]
    frames: Option<u32>,
    /// All words in one picture, each by a colour, instead of beside each other
    #[arg(long)]
    together: bool,
    /// Pictures a second [default: 16 of a video, 4 of latent frames and steps, 2 of blocks]
    #[arg(long, value_name = "N", value_parser = parse_fps)]
    fps: Option<f64>,
}

impl FilmArgs {
    fn drawing(&self) -> Moving {
        Moving {
            reduction: self.common.reduce.reduction(),
            along: self.along,
            backdrop: self.backdrop.backdrop(),
            placement: self.backdrop.time,
            alpha: self.backdrop.alpha,
            frames: self.frames.map(|frames| frames as usize),
            frame: self.frame,
            together: self.together,
            fps: self.fps,
            ..Moving::new(self.common.filter())
        }
    }
}

pub(super) fn run(args: &FilmArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = Store::open(&args.common.select.store)?;
    let done = draw(args, &store, global);
    let code = say_left_out(&store);
    done.map(|()| code)
}

fn draw(args: &FilmArgs, store: &Store, global: &Global) -> Result<(), Failure> {
    let drawing = args.drawing();
    if args.common.explain {
        return show(&Question::Average(drawing.question()).explain(store)?.to_string());
    }
    let Some(path) = &args.common.output else {
        return Err(Failure::usage(
            "no file for the film is named",
            "add -o film.gif (or .png, .webp; .mp4 and .webm need ffmpeg), or a directory",
        ));
    };
    check_outside(path, &args.common.select.store)?;
    let is_directory = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let format = if is_directory { None } else { Some(format_of(path)?) };
    interrupt::listen();
    let bar = Bar::of_bytes("query", global.quiet).from(WORTH_A_BAR);
    let film = drawing.begin(store, &args.common.look.look(), &bar)?;
    bar.finish();
    say_notes(&film.notes, global);
    let bar = Bar::of_tasks("film", global.quiet);
    match format {
        Some(format) => {
            output::replace_by(path, |staged| film.write(staged, format, &bar).map_err(Failure::from))?;
        }
        None => {
            std::fs::create_dir_all(path).map_err(|error| {
                Failure::with_hint(format!("{}: {error}", path.display()), "name another directory")
            })?;
            let is_picture = |name: &std::ffi::OsStr| {
                let name = name.to_string_lossy();
                name.starts_with("frame_") && name.ends_with(".png")
            };
            let mut entries = std::fs::read_dir(path)?;
            if entries.any(|entry| entry.is_ok_and(|entry| is_picture(&entry.file_name()))) {
                return Err(Failure::usage(
                    format!("{}: has pictures called frame_….png already", path.display()),
                    "name another directory, or remove them",
                ));
            }
            let mut number = 0;
            film.draw(&bar, |picture| {
                let name = path.join(format!("frame_{number:04}.png"));
                number += 1;
                output::write_whole(&name, &picture.to_png()?).map_err(|error| DrawError::Frames {
                    path: name.clone(),
                    found: error.to_string(),
                    remedy: "name another directory".into(),
                })
            })?;
        }
    }
    bar.finish();
    if !global.quiet {
        let (width, height) = film.size();
        let pictures = units::count(film.len() as u64, "picture");
        say(&format!("{}: {pictures} of {width} x {height}, {} a second", path.display(), film.fps));
    }
    Ok(())
}

fn parse_fps(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.01..=1000.0).contains(number));
    number.ok_or_else(|| format!("`{text}` is no number from 0.01 to 1000"))
}

fn format_of(path: &Path) -> Result<FilmFormat, Failure> {
    check_directory(path)?;
    FilmFormat::of_path(path).ok_or_else(|| {
        Failure::usage(
            format!("{}: the extension names no format for films", path.display()),
            "name a .gif, .png, .webp, .mp4 or .webm file, or a directory",
        )
    })
}
