/* The ring of xybridd in C11 or C++17 and POSIX: one file to include, no libraries. docs/ring.md is its specification.
 *
 *     xybridd_ring ring;
 *     struct xr_identity app = {.client_id = uuid, .app = "kiosk", .app_version = "2.1"};
 *     if (xr_create(&ring, folder, &app, XR_SLOTS, XR_TABLE_BYTES) == 0) {
 *         const char *whisper[] = {"whisper-tiny", "1.0"};
 *         uint32_t model = xr_entry(&ring, XR_MODEL, 0, 2, whisper);
 *         if (xr_inference(&ring, model, 212.5, xr_now_s(), NULL) == XR_FULL)
 *             ...                             the ring is full: xr_retire it, and go on in a new one
 *     }
 *
 * A record is written into a file that is mapped: no system call, no lock, no wait. The kernel owns the mapping, so the
 * record survives the death of the app. A daemon reads the file once it has its descriptor (`ring.attach`).
 *
 * Threads: every function may be called from any thread, but not in a signal handler; create, retire and close a ring
 * in one thread at a time. A forked child must not write into its parent's ring, and cannot: every number is above its
 * limit. It closes the parent's ring, and makes its own.
 *
 * Include this file before others, or define _DEFAULT_SOURCE (Linux) or _DARWIN_C_SOURCE (macOS).
 */
#ifndef XYBRIDD_RING_H
#define XYBRIDD_RING_H

#if defined(__linux__) && !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE 1
#elif defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)
#define _DARWIN_C_SOURCE 1
#endif

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "A ring is little-endian, and this writer stores numbers as the machine has them."
#endif
#ifndef MAP_ANONYMOUS
#error "Include xybridd_ring.h before other headers, or define _DEFAULT_SOURCE."
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define XR_HEADER_BYTES 4096u
#define XR_SLOT_BYTES 64u
#define XR_SLOTS 16384u
#define XR_TABLE_BYTES (1024u * 1024u)
#define XR_ORDERED 1u             /* flag of the header: a slot's number is published by a release store */
#define XR_JOINED 1u              /* flag of a session entry: another process started the session */
#define XR_LARGEST 9007199254740992.0 /* 2^53: the largest number in a slot */
#define XR_ERROR_BYTES 8192u

/* Slots, and bytes of the table, that are allocated at once. A write to mapped memory that a full file system cannot
 * provide is a signal that kills the app, so nothing is written that was not allocated. */
#define XR_SLOTS_AT_ONCE 1024u
#define XR_TABLE_AT_ONCE 65536u

/* Words of the header, by index. The first two are the writer's, the others the reader's. */
enum xr_word { XR_TABLE_USED = 8, XR_RETIRED = 9, XR_LIMIT = 16, XR_DURABLE, XR_COUNTED, XR_REJECTED, XR_ASLEEP };

/* Kinds of table entries, and their strings. */
enum xr_entry_kind {
    XR_PRODUCER = 1, /* client id, app, app version, SDK version, boot id; `xr_create` writes it */
    XR_MODEL,        /* model id, version; without the version for an error that names none */
    XR_ERROR_TEXT,   /* text */
    XR_SESSION       /* session id, start in ms since 1970, then label names and values */
};

/* Kinds of slots. */
enum xr_kind {
    XR_INFERENCE = 1,
    XR_STARTED,
    XR_ERROR,
    XR_MORE_STATS,
    XR_CANCELLED,
    XR_SESSION_STARTED,
    XR_SESSION_ENDED,
    XR_LEFT,
    XR_DROPPED,
    XR_VOID
};

enum xr_hardware { XR_HARDWARE_NONE, XR_CPU, XR_GPU, XR_NPU };
enum xr_target { XR_TARGET_NONE, XR_LOCAL, XR_CLOUD, XR_FALLBACK };
enum xr_category {
    XR_CATEGORY_NONE,
    XR_MODEL_LOADING,
    XR_PREPROCESSING,
    XR_INFERENCE_FAILED,
    XR_POSTPROCESSING,
    XR_NETWORK,
    XR_HARDWARE_FAILED,
    XR_MEMORY,
    XR_UNKNOWN
};

/* Bits of the stats that are present. */
enum xr_stat {
    XR_INPUT_TOKENS = 1,
    XR_OUTPUT_TOKENS = 2,
    XR_TOKENS_PER_SECOND = 4,
    XR_TIME_TO_FIRST_TOKEN_MS = 8,
    XR_SAMPLES_PER_SECOND = 16,
    XR_MEMORY_PEAK_MB = 32
};

/* What is known of an inference. `present`: which of the numbers are set. */
struct xr_stats {
    unsigned present;
    enum xr_hardware hardware;
    enum xr_target target;
    uint32_t input_tokens, output_tokens;
    double tokens_per_second, time_to_first_token_ms, samples_per_second;
    double memory_peak_mb; /* a whole number */
};

/* The hot writer: the memory of the slots, and two numbers. */

struct xr_writer {
    unsigned char *slots;
    uint64_t mask;   /* slots - 1 */
    uint64_t *limit; /* the highest number that may be written: a private copy, in a page that a fork wipes */
    pid_t pid;       /* where a fork cannot wipe that page: the process that may write; else 0 */
    uint64_t next;   /* the last number that was reserved */
};

/* The next slot number, from 1. Compare it to the limit before you write it. */
static inline uint64_t xr_reserve(struct xr_writer *writer) {
    return __atomic_add_fetch(&writer->next, 1, __ATOMIC_ACQ_REL);
}

static inline uint64_t xr_reserved(const struct xr_writer *writer) {
    return __atomic_load_n(&writer->next, __ATOMIC_ACQUIRE);
}

/* True: the number must be written, if only as XR_VOID. False: take the slow path, `xr_refresh_limit`. */
static inline bool xr_may_write(const struct xr_writer *writer, uint64_t number) {
    return number <= __atomic_load_n(writer->limit, __ATOMIC_ACQUIRE) && (writer->pid == 0 || writer->pid == getpid());
}

/* Fill a slot. The number comes last: a slot that is read with its number is complete. */
static inline void xr_write(struct xr_writer *writer, uint64_t number, double latency_ms, double at_s,
                            uint64_t descriptor, const uint64_t words[3], uint64_t call) {
    unsigned char *slot = writer->slots + (number & writer->mask) * XR_SLOT_BYTES;
    memcpy(slot, &latency_ms, 8);
    memcpy(slot + 8, &at_s, 8);
    memcpy(slot + 16, &descriptor, 8);
    memcpy(slot + 24, words, 24);
    memcpy(slot + 48, &call, 8);
    __atomic_store_n((uint64_t *)(void *)(slot + 56), number, __ATOMIC_RELEASE);
}

static inline uint64_t xr_descriptor(enum xr_kind kind, uint32_t entry) { return (uint64_t)kind << 32 | entry; }

/* The words of stats, in the order of their bits. Returns how many there are, at most 5. */
static inline unsigned xr_stat_words(const struct xr_stats *stats, uint64_t words[6]) {
    unsigned count = 0;
    const double numbers[4] = {stats->tokens_per_second, stats->time_to_first_token_ms, stats->samples_per_second,
                               stats->memory_peak_mb};
    if (stats->present & (XR_INPUT_TOKENS | XR_OUTPUT_TOKENS))
        words[count++] = (stats->present & XR_INPUT_TOKENS ? stats->input_tokens : 0) |
                         (uint64_t)(stats->present & XR_OUTPUT_TOKENS ? stats->output_tokens : 0) << 32;
    for (unsigned i = 0; i < 4; i++)
        if (stats->present & XR_TOKENS_PER_SECOND << i)
            memcpy(&words[count++], &numbers[i], 8);
    for (unsigned i = count; i < 6; i++)
        words[i] = 0;
    return count;
}

/* The part of the descriptor that says which stats a slot has; of those whose words do not fit into three: the rest. */
static inline unsigned xr_first_stats(unsigned present) {
    unsigned words = 0, first = 0;
    for (unsigned bit = XR_INPUT_TOKENS; bit <= XR_MEMORY_PEAK_MB; bit <<= 1) {
        if (!(present & bit))
            continue;
        words += !(bit == XR_OUTPUT_TOKENS && present & XR_INPUT_TOKENS); /* they share a word */
        if (words <= 3)
            first |= bit;
    }
    return first;
}

/* Unix seconds. */
static inline double xr_now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* A ring: its file, and the writer of its slots */

typedef struct xybridd_ring {
    struct xr_writer writer;
    unsigned char *base; /* the mapped file */
    size_t size;
    uint32_t table_bytes, table_allocated, table_used;
    uint64_t slots, slots_allocated;
    char busy; /* a lock: a thread changes the table or the limit */
    int fd;    /* for `ring.attach` */
    pid_t owner;
    char id[37];      /* UUID */
    char path[1024]; /* of the file */
} xybridd_ring;

/* Who writes. NULL stands for nothing; a `boot_id` of NULL is looked up. */
struct xr_identity {
    const char *client_id; /* a UUID that stays the same for the life of the process */
    const char *app;       /* 1 to 128 characters */
    const char *app_version;
    const char *sdk_version;
    const char *boot_id;
};

static inline uint64_t *xr_word_at(const xybridd_ring *ring, enum xr_word word) {
    return (uint64_t *)(void *)(ring->base + 8 * (size_t)word);
}

static inline uint64_t xr_load(const xybridd_ring *ring, enum xr_word word) {
    return __atomic_load_n(xr_word_at(ring, word), __ATOMIC_ACQUIRE);
}

static inline void xr_store(xybridd_ring *ring, enum xr_word word, uint64_t value) {
    __atomic_store_n(xr_word_at(ring, word), value, __ATOMIC_RELEASE);
}

static inline void xr_lock(xybridd_ring *ring) {
    while (__atomic_test_and_set(&ring->busy, __ATOMIC_ACQUIRE))
        sched_yield();
}

static inline void xr_unlock(xybridd_ring *ring) { __atomic_clear(&ring->busy, __ATOMIC_RELEASE); }

/* Have a part of the file there for certain, as zeros. */
static inline bool xr_allocate(const xybridd_ring *ring, uint64_t start, uint64_t size) {
    static const char zeros[4096] = {0};
#ifndef __APPLE__
    int failed = posix_fallocate(ring->fd, (off_t)start, (off_t)size);
    if (failed != EOPNOTSUPP && failed != EINVAL) {
        errno = failed;
        return failed == 0;
    }
#endif
    while (size > 0) {
        ssize_t done = pwrite(ring->fd, zeros, size < sizeof zeros ? (size_t)size : sizeof zeros, (off_t)start);
        if (done <= 0)
            return false;
        start += (uint64_t)done;
        size -= (uint64_t)done;
    }
    return true;
}

/* The highest number whose slot is allocated, after an attempt to allocate that of `number`. */
static inline uint64_t xr_allocated_up_to(xybridd_ring *ring, uint64_t number) {
    const uint64_t step = ring->slots < XR_SLOTS_AT_ONCE ? ring->slots : XR_SLOTS_AT_ONCE;
    while (ring->slots_allocated < ring->slots && ring->slots_allocated <= number) {
        const uint64_t start = XR_HEADER_BYTES + ring->table_bytes + ring->slots_allocated * XR_SLOT_BYTES;
        if (!xr_allocate(ring, start, step * XR_SLOT_BYTES))
            break;
        ring->slots_allocated += step;
    }
    if (ring->slots_allocated >= ring->slots)
        return UINT64_MAX;
    return ring->slots_allocated ? ring->slots_allocated - 1 : 0;
}

/* Room in the table behind its entries, allocated for at least so many strings if there is any. */
static inline size_t xr_table_room(xybridd_ring *ring, unsigned strings) {
    const size_t wanted = ring->table_used + 8 + (size_t)strings * (4 + XR_ERROR_BYTES);
    while (ring->table_allocated < ring->table_bytes && ring->table_allocated < wanted) {
        const uint32_t left = ring->table_bytes - ring->table_allocated;
        const uint32_t step = left < XR_TABLE_AT_ONCE ? left : XR_TABLE_AT_ONCE;
        if (!xr_allocate(ring, XR_HEADER_BYTES + ring->table_allocated, step))
            break;
        ring->table_allocated += step;
    }
    return ring->table_allocated - ring->table_used;
}

/* The reader's limit, which it stores by a system call: it may be seen half written. */
static inline uint64_t xr_limit_of_reader(const xybridd_ring *ring) {
    uint64_t limit = xr_load(ring, XR_LIMIT), again;
    while ((again = xr_load(ring, XR_LIMIT)) != limit)
        limit = again;
    return limit;
}

/* Bytes of the UTF-8 character at `at`; 0: it is none. Reads no further than the NUL at the end. */
static inline size_t xr_character(const unsigned char *at) {
    if (at[0] < 0x80)
        return 1;
    if (at[0] < 0xC2 || at[0] > 0xF4)
        return 0;
    size_t length = at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : 4;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    bool overlong = (at[0] == 0xE0 && at[1] < 0xA0) || (at[0] == 0xF0 && at[1] < 0x90);
    bool surrogate = at[0] == 0xED && at[1] > 0x9F;
    bool beyond = at[0] == 0xF4 && at[1] > 0x8F;
    return overlong || surrogate || beyond ? 0 : length;
}

/* Copy a string as UTF-8, cut to its limit; U+FFFD stands for bytes that are none. SIZE_MAX: no room. */
static inline size_t xr_copy_text(unsigned char *out, size_t room, const char *string, size_t most_characters,
                                  size_t most_bytes) {
    const unsigned char *at = (const unsigned char *)string;
    size_t used = 0;
    for (; *at && most_characters; most_characters--) {
        size_t length = xr_character(at), bytes = length ? length : 3;
        if (used + bytes > most_bytes)
            break;
        if (used + bytes > room)
            return SIZE_MAX;
        memcpy(out + used, length ? at : (const unsigned char *)"\xEF\xBF\xBD", bytes);
        used += bytes;
        at += length ? length : 1;
    }
    return used;
}

/* Characters that a string of an entry may have. */
static inline size_t xr_most_characters(enum xr_entry_kind kind, unsigned index) {
    if (kind == XR_ERROR_TEXT)
        return XR_ERROR_BYTES;
    if (kind == XR_MODEL)
        return index == 0 ? 256 : 128;
    return kind == XR_SESSION && index >= 2 && index % 2 ? 1024 : 128;
}

/* Encode an entry behind the others, without publishing it. Returns its bytes without padding; 0: no room. */
static inline size_t xr_encode_entry(unsigned char *entry, size_t room, enum xr_entry_kind kind, unsigned flags,
                                     unsigned count, const char *const *strings) {
    size_t used = 8;
    for (unsigned i = 0; i < count; i++) {
        size_t length = SIZE_MAX;
        if (room >= used + 4)
            length = xr_copy_text(entry + used + 4, room - used - 4, strings[i], xr_most_characters(kind, i),
                                  XR_ERROR_BYTES);
        if (length == SIZE_MAX) {
            used += 4 + XR_ERROR_BYTES; /* what the string that did not fit may have written */
            memset(entry, 0, room < used ? room : used);
            return 0;
        }
        const uint32_t bytes = (uint32_t)length;
        memcpy(entry + used, &bytes, 4);
        used += 4 + length;
    }
    const uint32_t body = (uint32_t)used - 8;
    const unsigned char tail[4] = {(unsigned char)kind, (unsigned char)count, (unsigned char)flags, 0};
    memcpy(entry, &body, 4);
    memcpy(entry + 4, tail, 4);
    return used;
}

/* The number of the entry with these bytes among those that are published; 0: there is none. */
static inline uint32_t xr_find_entry(const xybridd_ring *ring, const unsigned char *entry, size_t size) {
    const unsigned char *table = ring->base + XR_HEADER_BYTES;
    for (size_t at = 8; at < ring->table_used;) {
        uint32_t body;
        memcpy(&body, table + at, 4);
        if (body + 8 == size && memcmp(table + at, entry, size) == 0)
            return (uint32_t)at / 8;
        at += ((size_t)body + 8 + 7) & ~(size_t)7;
    }
    return 0;
}

/* The number of an entry with these strings: an old one, or one that is added. 0: the table is full, or a name that must
 * not be empty is, or the ring is a parent's. Texts are cut to their limits; what is not UTF-8 becomes U+FFFD. */
static inline uint32_t xr_entry(xybridd_ring *ring, enum xr_entry_kind kind, unsigned flags, unsigned count,
                                const char *const *strings) {
    const unsigned required = kind == XR_PRODUCER ? 1 : 0; /* which string */
    if (ring->owner != getpid() || count <= required || count > 255 ||
        (kind != XR_ERROR_TEXT && !strings[required][0]))
        return 0;
    xr_lock(ring);
    unsigned char *entry = ring->base + XR_HEADER_BYTES + ring->table_used;
    const size_t size = xr_encode_entry(entry, xr_table_room(ring, count), kind, flags, count, strings);
    const size_t padded = (size + 7) & ~(size_t)7; /* there is room: a table is a multiple of 8 bytes */
    uint32_t number = size ? xr_find_entry(ring, entry, size) : 0;
    if (number != 0) {
        memset(entry, 0, padded);
    } else if (size != 0) {
        memset(entry + size, 0, padded - size);
        number = ring->table_used / 8;
        ring->table_used += (uint32_t)padded;
        xr_store(ring, XR_TABLE_USED, ring->table_used);
    }
    xr_unlock(ring);
    return number;
}

/* Clock ticks between boot and the start of this process; 0: not known. */
static inline uint64_t xr_start_time(void) {
    char text[1024];
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[length > 0 ? length : 0] = '\0';
    const char *at = strrchr(text, ')'); /* field 2 ends there; the start is field 22 */
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

static inline void xr_boot_id(char id[37]) {
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, id, 36);
    if (fd >= 0)
        close(fd);
    id[length == 36 ? 36 : 0] = '\0';
}

static inline bool xr_random_id(unsigned char b[16], char id[37]) {
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    bool complete = fd >= 0 && read(fd, b, 16) == 16;
    if (fd >= 0)
        close(fd);
    if (!complete)
        return false;
    b[6] = (unsigned char)((b[6] & 0x0F) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3F) | 0x80);
    snprintf(id, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3],
             b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    return true;
}

/* Unmap the ring and close its file, which stays. In a forked child too: the parent's lock and file are not touched. */
static inline void xr_close(xybridd_ring *ring) {
    if (ring->base)
        munmap(ring->base, ring->size);
    if (ring->writer.limit)
        munmap(ring->writer.limit, sizeof *ring->writer.limit);
    if (ring->fd >= 0)
        close(ring->fd);
    memset(ring, 0, sizeof *ring);
    ring->fd = -1;
}

/* The private word: one page, which the kernel empties in a forked child. 0: the first record takes the slow path. */
static inline bool xr_map_limit(struct xr_writer *writer) {
    void *page = mmap(NULL, sizeof *writer->limit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return false;
    writer->limit = (uint64_t *)page;
    writer->pid = getpid();
#ifdef MADV_WIPEONFORK
    if (madvise(page, sizeof *writer->limit, MADV_WIPEONFORK) == 0)
        writer->pid = 0; /* Linux 4.14 and later need no look at the process id */
#endif
    return true;
}

/* Create `FOLDER/<ring id>.ring`, locked. `folder` is an absolute path to a folder that exists. `slots`: a power of two
 * from 64 to 262,144; `table_bytes`: a multiple of 4096, at most 8 MiB. -1: not created, errno says why. */
static inline int xr_create(xybridd_ring *ring, const char *folder, const struct xr_identity *identity, uint32_t slots,
                            uint32_t table_bytes) {
    char partial[sizeof ring->path], boot_id[37] = "";
    unsigned char id[16];
    memset(ring, 0, sizeof *ring);
    ring->fd = -1;
    if (slots < 64 || slots > 262144 || (slots & (slots - 1)) || table_bytes == 0 || table_bytes % 4096 ||
        table_bytes > 8u << 20 || identity->app == NULL || !*identity->app) {
        errno = EINVAL;
        return -1;
    }
    if (!xr_random_id(id, ring->id))
        return -1;
    int length = snprintf(ring->path, sizeof ring->path, "%s/%s.ring", folder, ring->id);
    if (length < 0 || (size_t)length + 1 >= sizeof ring->path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    const size_t stem = strlen(folder) + 1;
    memcpy(partial, ring->path, stem);
    partial[stem] = '.';
    memcpy(partial + stem + 1, ring->path + stem, (size_t)length - stem + 1);
    ring->fd = open(partial, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (ring->fd < 0)
        return -1;
    ring->owner = getpid();
    ring->table_bytes = table_bytes;
    ring->table_used = 8; /* entries begin at number 1 */
    ring->size = XR_HEADER_BYTES + (size_t)table_bytes + (size_t)slots * XR_SLOT_BYTES;
    ring->slots = slots;
    void *base = MAP_FAILED;
    if (flock(ring->fd, LOCK_EX | LOCK_NB) == 0 && ftruncate(ring->fd, (off_t)ring->size) == 0 &&
        xr_allocate(ring, 0, XR_HEADER_BYTES) && xr_allocated_up_to(ring, 1) > 0 && xr_table_room(ring, 1) > 8)
        base = mmap(NULL, ring->size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);
    bool created = base != MAP_FAILED && xr_map_limit(&ring->writer);
    if (created) {
        const uint32_t sizes[4] = {XR_HEADER_BYTES, table_bytes, slots, XR_ORDERED};
        const uint64_t whose[2] = {(uint64_t)ring->owner, xr_start_time()};
        const double created_at_s = xr_now_s();
        ring->base = (unsigned char *)base;
        ring->writer.slots = ring->base + XR_HEADER_BYTES + table_bytes;
        ring->writer.mask = slots - 1;
        memcpy(ring->base, "XYBRING1", 8);
        memcpy(ring->base + 8, sizes, sizeof sizes);
        memcpy(ring->base + 24, id, sizeof id);
        memcpy(ring->base + 40, &created_at_s, sizeof created_at_s);
        memcpy(ring->base + 48, whose, sizeof whose);
        xr_store(ring, XR_LIMIT, slots);
        if (identity->boot_id == NULL)
            xr_boot_id(boot_id);
        const char *const strings[5] = {identity->client_id ? identity->client_id : "", identity->app,
                                        identity->app_version ? identity->app_version : "",
                                        identity->sdk_version ? identity->sdk_version : "",
                                        identity->boot_id ? identity->boot_id : boot_id};
        created = xr_entry(ring, XR_PRODUCER, 0, 5, strings) == 1 && rename(partial, ring->path) == 0;
    } else if (base != MAP_FAILED) {
        munmap(base, ring->size);
    }
    if (!created) {
        const int reason = errno;
        unlink(partial);
        xr_close(ring);
        errno = reason;
        return -1;
    }
    return 0;
}

/* The slow path for a number above the private limit: whether it may be written now, and must. False: the ring is full,
 * or retired, or another process's. */
static inline bool xr_refresh_limit(xybridd_ring *ring, uint64_t number) {
    if (ring->owner != getpid())
        return false; /* a forked child: make another ring */
    xr_lock(ring);
    const uint64_t retired = xr_load(ring, XR_RETIRED);
    uint64_t limit = retired - 1;
    if (retired == 0) {
        const uint64_t allocated = xr_allocated_up_to(ring, number);
        limit = xr_limit_of_reader(ring);
        limit = limit < allocated ? limit : allocated;
        __atomic_store_n(ring->writer.limit, limit, __ATOMIC_RELEASE);
    }
    xr_unlock(ring);
    return number <= limit;
}

/* Whether the next `slots` numbers may be written. For a writer of one thread, which then drops records instead of
 * reserving numbers for them. */
static inline bool xr_has_room(xybridd_ring *ring, uint64_t slots) {
    const uint64_t last = xr_reserved(&ring->writer) + slots;
    return xr_may_write(&ring->writer, last) || xr_refresh_limit(ring, last);
}

/* Slots up to the last that was reserved, which are not on the daemon's disk yet. */
static inline uint64_t xr_unread(const xybridd_ring *ring) {
    const uint64_t last = xr_reserved(&ring->writer), durable = xr_load(ring, XR_DURABLE);
    return last > durable ? last - durable : 0;
}

/* Nothing is reserved in this ring any more. Numbers that were reserved before, up to the limit, are still written. */
static inline void xr_retire(xybridd_ring *ring) {
    xr_lock(ring);
    __atomic_store_n(ring->writer.limit, 0, __ATOMIC_SEQ_CST);
    const uint64_t allocated = xr_allocated_up_to(ring, 0), limit = xr_limit_of_reader(ring);
    uint64_t last = xr_reserve(&ring->writer) - 1;
    last = last < limit ? last : limit;
    xr_store(ring, XR_RETIRED, 1 + (last < allocated ? last : allocated));
    xr_unlock(ring);
}

/* This process writes no more: whoever finds the file may deliver it. Closes the ring. */
static inline void xr_disown(xybridd_ring *ring) {
    static const uint64_t nobody[2] = {0, 0};
    if (ring->owner == getpid()) {
        memcpy(ring->base + 48, nobody, sizeof nobody);
        flock(ring->fd, LOCK_UN);
    }
    xr_close(ring);
}

/* Whether the reader wants `ring.wake`. A writer without a thread asks after it has published slots. */
static inline bool xr_asleep(const xybridd_ring *ring) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return xr_load(ring, XR_ASLEEP) != 0;
}

/* Records that are not on the daemon's disk yet. */
static inline uint64_t xr_waiting(const xybridd_ring *ring) {
    const uint64_t last = xr_reserved(&ring->writer), unread = xr_unread(ring);
    uint64_t number = last - (unread < ring->slots ? unread : ring->slots), waiting = 0;
    while (++number <= last) {
        const unsigned char *slot = ring->writer.slots + (number & ring->writer.mask) * XR_SLOT_BYTES;
        const bool is_record = slot[20] == XR_INFERENCE || slot[20] == XR_ERROR || slot[20] == XR_CANCELLED;
        waiting += is_record && memcmp(slot + 56, &number, 8) == 0;
    }
    return waiting;
}

/* Records */

enum xr_result { XR_FULL, XR_OK, XR_WRONG }; /* XR_WRONG: a number that cannot be right */

/* A record's slot, and one more for stats that do not fit: both, or none. */
static inline enum xr_result xr_append(xybridd_ring *ring, enum xr_kind kind, uint32_t entry, double latency_ms,
                                       double at_s, uint64_t details, const uint64_t words[6], unsigned count,
                                       unsigned present, uint64_t call) {
    struct xr_writer *writer = &ring->writer;
    const uint64_t slots = count > 3 ? 2 : 1;
    const uint64_t last = __atomic_add_fetch(&writer->next, slots, __ATOMIC_ACQ_REL), first = last + 1 - slots;
    static const uint64_t nothing[3] = {0, 0, 0};
    if (!xr_may_write(writer, last) && !xr_refresh_limit(ring, last)) {
        if (slots == 2 && xr_refresh_limit(ring, first)) /* the limit lies between them */
            xr_write(writer, first, 0, at_s, xr_descriptor(XR_VOID, 0), nothing, 0);
        return XR_FULL;
    }
    const unsigned bits = xr_first_stats(present);
    xr_write(writer, first, latency_ms, at_s, xr_descriptor(kind, entry) | (uint64_t)bits << 48 | details, words, call);
    if (slots == 2)
        xr_write(writer, last, 0, at_s, xr_descriptor(XR_MORE_STATS, entry) | (uint64_t)(present & ~bits) << 48,
                 words + 3, first);
    return XR_OK;
}

static inline bool xr_is_amount(double number) { return number >= 0 && number <= XR_LARGEST; } /* not NaN either */

/* One inference. `model`: its entry. `stats` may be NULL. */
static inline enum xr_result xr_inference(xybridd_ring *ring, uint32_t model, double latency_ms, double at_s,
                                          const struct xr_stats *stats) {
    uint64_t words[6] = {0, 0, 0, 0, 0, 0}, details = 0;
    unsigned count = 0;
    if (model == 0 || !xr_is_amount(latency_ms))
        return XR_WRONG;
    if (stats) {
        const unsigned present = stats->present;
        if ((present & XR_TOKENS_PER_SECOND && !xr_is_amount(stats->tokens_per_second)) ||
            (present & XR_TIME_TO_FIRST_TOKEN_MS && !xr_is_amount(stats->time_to_first_token_ms)) ||
            (present & XR_SAMPLES_PER_SECOND && !xr_is_amount(stats->samples_per_second)) ||
            (present & XR_MEMORY_PEAK_MB && !(xr_is_amount(stats->memory_peak_mb) &&
                                              stats->memory_peak_mb == (double)(uint64_t)stats->memory_peak_mb)))
            return XR_WRONG;
        count = xr_stat_words(stats, words);
        details = (uint64_t)stats->hardware << 40 | (uint64_t)stats->target << 44;
    }
    return xr_append(ring, XR_INFERENCE, model, latency_ms, at_s, details, words, count, stats ? stats->present : 0, 0);
}

/* An error. `text`: its entry; `model`: the entry of its model, 0 for none; the daemon finds a category of 0. */
static inline enum xr_result xr_error(xybridd_ring *ring, uint32_t text, uint32_t model, enum xr_category category,
                                      double at_s) {
    const uint64_t words[6] = {model, 0, 0, 0, 0, 0};
    return xr_append(ring, XR_ERROR, text, 0, at_s, (uint64_t)category << 56, words, 0, 0, 0);
}

/* A slot of another kind without a latency: XR_SESSION_STARTED, XR_SESSION_ENDED, XR_LEFT, XR_DROPPED (`word`: how
 * many). */
static inline enum xr_result xr_note(xybridd_ring *ring, enum xr_kind kind, uint32_t entry, uint64_t word,
                                     double at_s) {
    const uint64_t words[6] = {word, 0, 0, 0, 0, 0};
    return xr_append(ring, kind, entry, 0, at_s, 0, words, 0, 0, 0);
}

#ifdef __cplusplus
}
#endif

#endif
