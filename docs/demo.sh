#!/bin/sh
# A first look at attnkit on the bundled dumps; `make demo` runs it.
# Usage: demo.sh DIR, in the root of a checkout, with attnkit on the PATH. Replaces what an earlier demo left in DIR.
set -eu

demo=${1:?usage: demo.sh DIR}
store=$demo/shapes

# Shows a command as one would type it, then runs it.
run() {
    printf '\n$'
    for word in "$@"; do
        case $word in
            *[' <>()=']*) printf " \"%s\"" "$word" ;;
            *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$@"
}

say() {
    printf '\n# %s\n' "$*"
}

rm -rf "$demo/shapes" "$demo/export" "$demo/circle.npy" "$demo/circle.json"
rm -rf "$demo/map.npy" "$demo/map.json" "$demo/circle.gif" "$demo/heads.png" "$demo/sheet.png" "$demo/report.html"
mkdir -p "$demo"

say 'A dump: 16 videos of two moving shapes, the maps of one or two words each, 10 denoising steps.'
run attnkit info fixtures/dataset

say 'How large would it be with blocks or heads averaged, and how large is its store?'
run attnkit estimate --from fixtures/dataset

say 'It becomes a store: Zarr arrays and Parquet tables.'
run attnkit ingest fixtures/dataset --store "$store"
run attnkit info "$store"

say 'How does the attention to a word change through the denoising steps?'
run attnkit query evolution "$store" --token circle --sparkline --limit 4 --format table

say 'Which heads localise it best? The share of the highest 5 % of positions says how concentrated a map is.'
run attnkit query sql "$store" \
  "SELECT block, head, avg(top5) AS top5, avg(spread) AS spread FROM heads WHERE token = 'circle' \
   GROUP BY block, head ORDER BY top5 DESC LIMIT 5" --format table

say 'The mean over such heads alone, over all steps, as an array of one map per video.'
run attnkit query average "$store" --over block,head,step --where "token = 'circle' AND top5 > 0.15" \
  -o "$demo/circle.npy"

say 'How alike is the word in different prompts?'
run attnkit query compare "$store" --across prompt --token circle --where "seed = 11" --align mean \
  --matrix --metric cosine --format table

say 'What does a weight in the prompt do to a word? The templates of the prompts tell the weights;' \
    'only the tables are written again.'
run attnkit prompt expand fixtures/dataset/templates.txt --format table
run attnkit ingest fixtures/dataset --store "$store" --prompts fixtures/dataset/templates.txt
run attnkit query compare "$store" --across weight --token circle \
  --where "prompt = 'a red circle above a blue square'" --align mean --metric mass_ratio --format table

say 'One map, in the pixels and frames of its video.'
run attnkit query map "$store" --video prompt_000_vid001 --token circle --step 4 --block 4 --head 0 \
  --size 192x192 --frames 13 -o "$demo/map.npy"

say 'Look at it: the same head over the frames of its video, each latent frame where the VAE decodes it.'
run attnkit render film "$store" --video prompt_000_vid001 --token circle --block 4 --head 0 \
  --frames-dir fixtures/dataset/frames/prompt_000_vid001 --size 288x288 --dpi 144 --fps 6 -o "$demo/circle.gif"

say 'Which heads look at the circle: blocks down, heads across.'
run attnkit render heads "$store" --token circle -o "$demo/heads.png"

say 'Both words, step by step, in one sheet.'
run attnkit render sheet "$store" --video prompt_000_vid001 --rows token --cols step --range row -o "$demo/sheet.png"

say 'And all of it on one page, which opens anywhere.'
run attnkit report "$store" -o "$demo/report.html"

say 'What would be read, and how much: a mean over all blocks and heads is stored already.'
run attnkit query average "$store" --token circle --explain

say 'Every value is there, bit for bit.'
run attnkit verify "$store" --against fixtures/dataset

say 'Running it again does only what is new: nothing.'
run attnkit ingest fixtures/dataset --store "$store"

say 'And back: the dump again, value by value.'
run attnkit export "$store" --out "$demo/export" --layout nested --format npy.gz

say 'One video in every form that a generator writes it in. The video ids are the same, so each form gets a prefix.'
for variant in fixtures/variants/*/; do
    variant=$(basename "$variant")
    run attnkit ingest "fixtures/variants/$variant" --store "$store" --prefix "$variant"
done
run attnkit info "$store"

cat <<EOF

# The store is plain Zarr and Parquet. With xarray and DuckDB, try next:

import duckdb, glob, xarray
duckdb.sql("""
    SELECT token, block, head, round(avg(entropy), 2) AS entropy, round(avg(top5), 2) AS top5
    FROM '$store/index/heads/*.parquet' GROUP BY ALL ORDER BY entropy LIMIT 5
""")
word, = glob.glob("$store/maps/prompt_000_vid001/circle@*")
xarray.open_zarr(word, consolidated=False)

import numpy
numpy.load("$demo/map.npy").shape

# Look at $demo/circle.gif, $demo/heads.png, $demo/sheet.png, and open $demo/report.html

# Your own dump: attnkit ingest DUMP --store STORE; then attnkit query --help, and the cookbook docs/query.md
# In Python: pip install ./python, then docs/python.md and the notebook docs/tour.ipynb
EOF
