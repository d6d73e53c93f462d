/* What the Python side packs, and what the files of this library share.
 *
 * Every field is 8 bytes, so that `struct.pack` of integers, addresses and doubles is the struct itself. Strides are in
 * bytes; the last axis of data, features and points is contiguous. Change ABI_VERSION with any field, here and in
 * ops/native_library.py. */
#ifndef ROBOCACHE_NATIVE_H
#define ROBOCACHE_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#define ABI_VERSION 7

enum dtype { FLOAT16, BFLOAT16, FLOAT32, FLOAT64, BYTES1, BYTES2, BYTES4, BYTES8 };
enum time_dtype { TIME_FLOAT32, TIME_FLOAT64, TIME_INT64 };
enum policy { LINEAR, NEAREST, PREVIOUS, SLERP, ANGLE };  /* as in ops/limits.py */
enum outside { OUTSIDE_CLAMP, OUTSIDE_NAN, OUTSIDE_EXTRAPOLATE };
enum mode { MODE_OCCUPANCY, MODE_COUNT, MODE_MEAN, MODE_SUM, MODE_MAX, MODE_MIN };

typedef struct {
    const char *data;    /* [batch, source, dim] */
    const char *times;   /* [batch, source], the last axis contiguous */
    const char *lengths; /* [batch] or NULL */
    int64_t source, dim;
    int64_t data_batch_stride, data_row_stride, times_batch_stride, lengths_stride;
    int64_t lengths_are_wide; /* int64, else int32 */
    int64_t policy, outside;
    int64_t has_limit;
    union {
        int64_t integer;
        double real;
    } limit;
    double period;
} stream_arguments;

typedef struct {
    const char *targets; /* [batch, target], the last axis contiguous */
    char *out;           /* [batch, target, sum of dims] */
    char *valid;         /* [batch, target, streams], one byte each */
    int64_t batch, target, targets_batch_stride;
    int64_t dtype, time_dtype, threads, streams;
    stream_arguments stream[];
} resample_arguments;

typedef struct {
    const char *points;     /* [n, 3] */
    const char *features;   /* [n, width] or NULL */
    const int64_t *offsets; /* [clouds + 1] or NULL */
    char *out;              /* [clouds, x, y, z(, width)] */
    int64_t n, point_stride, feature_stride, width, clouds;
    int64_t size[3];
    int64_t point_dtype, feature_dtype, mode, clamps;
    int64_t is_fresh; /* the grid's memory was just allocated: its pages may not be there */
    int64_t threads;
    double lowest[3], edge[3];
} voxelize_arguments;

/* A cloud into a grid that is empty but for voxels that are known. */
typedef struct {
    int64_t *touched; /* voxels that are not empty, with room for one a point; NULL: those of the cloud need no list */
    uint32_t *counts; /* [x, y, z], zeros; left so. NULL unless there are features */
    int64_t cleared;  /* so many of the touched are emptied before the cloud is added, */
    int64_t kept;     /* so many stay, and stand before those that the cloud adds */
    voxelize_arguments cloud;
} update_arguments;

/* Runs of rows from many places into one buffer. A run that goes on beyond `last` repeats that row. */
typedef struct {
    const int64_t *bases;  /* [runs] addresses of row 0; 0: the run is filled with zeros */
    const int64_t *first;  /* [runs] rows; below 0: zeros */
    const int64_t *last;   /* [runs] the last row that a run may read */
    const int64_t *starts; /* [runs] the run's first row in `out`, or NULL: one after the other */
    const int64_t *counts; /* [runs] rows of each run, or NULL: `per_run` */
    char *out;
    int64_t runs, per_run, row_bytes, out_bytes, threads;
    int64_t is_scaled; /* each byte becomes a float32, a 255th of it: rows of `out` are four times as wide */
} gather_arguments;

/* One row a run, from a file or from memory. */
typedef struct {
    const int64_t *files;  /* [runs] descriptors; below 0: the row is in memory */
    const int64_t *bases;  /* [runs] where row 0 is: its offset in the file, or its address; 0 in memory: zeros */
    const int64_t *rows;   /* [runs] which row; below 0: zeros */
    const int64_t *starts; /* [runs] the run's row in `out`, or NULL: one after the other */
    char *out;
    int64_t runs, row_bytes, threads;
    int64_t *problem; /* [2], zeros; set to an errno and the run that had it, where one cannot be read */
} read_arguments;

/* A column of rows, and which of them a sample has: its own, or those at some offsets. */
typedef struct {
    const char *rows;
    int64_t row_bytes;
    const int64_t *offsets; /* [deltas] rows from the sample's, held at its episode's edges; NULL: its own row alone */
    const int64_t *spans;   /* [2, deltas]: it is padding unless both of these rows are of the episode */
    int64_t deltas;
} take_column;

/* What the calls on one set of columns share. */
typedef struct {
    const int64_t *starts, *ends; /* [rows] where the episode of each row begins and ends */
    int64_t rows, sample_bytes, columns;
    take_column column[];
} take_plan;

typedef struct {
    char *out;    /* [count, row_bytes], or [count, deltas, row_bytes] */
    char *is_pad; /* [count, deltas], one byte each */
} take_output;

typedef struct {
    const take_plan *plan;
    int64_t *index; /* [count] rows; negative ones count from the end, and are made positive */
    int64_t count, threads;
    take_output output[]; /* one a column */
} take_arguments;

/* Which samples make one target. */
enum kind { SINGLE, MIXED, FILLED };
typedef struct {
    int64_t low, high;
    double weight; /* of `high`; a float32 number unless the data is float64 */
    enum kind kind;
} neighbours;

/* One stream's part of some output rows: the samples of a batch row to `count` targets. */
typedef struct {
    const char *rows;
    char *out;
    int64_t row_stride, out_stride, dim, count;
    double period;
    const neighbours *found;
} blend_arguments;

/* Some points of one cloud to flat voxel numbers, -1 where a point is dropped. */
typedef struct {
    const char *points;
    int64_t stride, count, base; /* `base` is the cloud's first voxel */
    const voxelize_arguments *grid;
} cells_arguments;

/* The points of one tile of voxels: each entry is a voxel of the tile (16 bits) and a point (48 bits). */
#define POINT_BITS 48
#define TILE_VOXELS 65536
typedef struct {
    const uint64_t *entries;
    int64_t count, voxels;
    float *out;       /* [voxels, width] */
    uint32_t *counts; /* [voxels], zeros; left so */
    const voxelize_arguments *grid;
} tile_arguments;

/* Some points, numbered, to the rows of their voxels. */
typedef struct {
    const int64_t *cells; /* [count], -1 where a point is dropped */
    const char *features; /* of the first of them */
    int64_t count, touched; /* how many voxels are in the list before */
    const update_arguments *call;
} scatter_arguments;

#define COUNTED_RUNS 64

/* The inner loops, once for each instruction set. */
typedef struct {
    void (*linear[4])(const blend_arguments *);
    void (*slerp[4])(const blend_arguments *);
    void (*angle[4])(const blend_arguments *);
    void (*cells[4])(const cells_arguments *, int64_t *cells);
    void (*reduce[4])(const tile_arguments *);
    int64_t (*scatter[4])(const scatter_arguments *); /* how many voxels are in the list afterwards */
    /* How many of `count` ascending times are <= each target, for so few times as COUNTED_RUNS vectors hold; by the dtype
     * of times, and NULL where there is nothing better than a binary search. */
    void (*count[3])(const void *times, int64_t count, const void *targets, int64_t wanted, int64_t *later);
    int64_t vector_bytes;
    /* Copy without fetching the lines that are overwritten. `out` and `from` lie alike in their lines. */
    void (*write_past_caches)(char *out, const char *from, int64_t bytes);
} inner_loops;

const inner_loops *best_inner_loops(void);
extern const inner_loops inner_loops_base;
#ifdef HAS_X86_VARIANTS
extern const inner_loops inner_loops_avx2, inner_loops_avx512, inner_loops_avx512bf16;
#endif

/* Calls run(context, part, parts) for every part, in as many threads; returns when all are done. */
void run_parts(int64_t parts, void (*run)(void *context, int64_t part, int64_t parts), void *context);
/* As many threads as asked for, but none with less than a share worth its start. */
int64_t useful_threads(int64_t threads, int64_t work);

/* Count points, or mark their voxels, with a few threads; 0 where there is no memory for that. */
int count_by_ranges(const voxelize_arguments *call, const inner_loops *loops, int64_t voxels, int64_t threads);

/* Have the pages of a part that is about to be written, in one call instead of a fault each. */
void populate(char *start, int64_t bytes);
/* How many faults this thread had; whether bytes written since then were on pages that came with them. Allocators hand
 * out more than MAPPED_BYTES as new pages, and less sometimes so. */
int64_t page_faults(void);
int are_pages_new(int64_t faults_before, int64_t bytes);
#define MAPPED_BYTES (32 << 20)
/* Have memory that is written in full, and on new pages, in few large ones where the system has them. */
void use_large_pages(char *start, int64_t bytes);

#define LINE 64 /* bytes that a cache moves at a time */
/* 255ths of bytes, as float32. */
void write_scaled(float *out, const uint8_t *from, int64_t count, int is_past_caches);
/* Before another thread reads what was so written. */
void finish_writes(void);

#define EXPORT __attribute__((visibility("default")))
#endif
