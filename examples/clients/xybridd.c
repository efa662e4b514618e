/* The rules, which docs/clients.md gives with their reasons:
 *
 * - One request is under way at a time, and its answer is awaited. What is recorded meanwhile gathers in slots.
 * - The oldest slot is the batch that is sent. It has a number from the moment it is sent, takes no more records, and
 *   stays as it is until it is acknowledged: by its own answer, or by the `last_seq` of the next hello.
 * - Whatever breaks, breaks the connection. The next one says hello, takes the session up, and sends that batch again.
 */
#define _POSIX_C_SOURCE 200809L

#include "xybridd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* where there is none, ignore SIGPIPE in your app */
#endif

enum {
    SLOTS = 14,
    SLOT_BYTES = 64 * 1024,
    SLOT_RECORDS = 500,
    REQUEST_BYTES = SLOT_BYTES + 1024,
    ANSWER_BYTES = 4 * 1024, /* of a longer line only the beginning is kept; what is looked for stands there */
    NAME_BYTES = 1024,       /* 128 characters as JSON, and the quotes */
    MODEL_CHARACTERS = 256,
    VERSION_CHARACTERS = 128,
    ERROR_CHARACTERS = 2048,
    FIRST_RETRY_MS = 25,
    LONGEST_RETRY_MS = 1000
};

#define LARGEST_EXACT 9007199254740992.0 /* 2^53: what a number of the protocol may be */

/* The answer that is awaited. */
enum step { AWAY, HELLO, START, NOTHING, BATCH, END };

struct slot {
    char records[SLOT_BYTES]; /* JSON, with commas between */
    size_t length;
    unsigned count;
    unsigned long long dropped; /* told with this batch */
    bool sealed;                /* it was sent once: it takes no more */
};

struct xybridd {
    int fd;
    enum step step;
    unsigned long request_id;
    char request[REQUEST_BYTES];
    size_t request_length, request_sent;
    char answer[ANSWER_BYTES];
    size_t answer_length;
    long long next_try_ms; /* monotonic; before that nothing is begun */
    long long retry_ms;

    struct slot slots[SLOTS];
    unsigned first, used;
    unsigned long long seq; /* the number that the oldest slot has, or gets */
    unsigned long long dropped_untold;
    bool hurry, ending, ended, declined;

    char app[NAME_BYTES], app_version[NAME_BYTES]; /* as JSON */
    char client_id[37], session_id[37];
    unsigned long long started_at_ms;
    struct xybridd_counts counts;
};

/* Text, cut off at its bounds: `full` tells. */

struct text {
    char *start;
    size_t length, size;
    bool full;
};

static void put_bytes(struct text *text, const char *bytes, size_t length) {
    if (text->full || length >= text->size - text->length) {
        text->full = true;
        return;
    }
    memcpy(text->start + text->length, bytes, length);
    text->length += length;
    text->start[text->length] = '\0';
}

static void put(struct text *text, const char *words) { put_bytes(text, words, strlen(words)); }

static void put_whole(struct text *text, unsigned long long number) {
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", number);
    put(text, digits);
}

/* With three digits behind the point, whatever the locale's point is. */
static void put_number(struct text *text, double number) {
    unsigned long long thousandths = (unsigned long long)(number * 1000 + 0.5);
    char digits[32];
    snprintf(digits, sizeof digits, "%llu.%03llu", thousandths / 1000, thousandths % 1000);
    put(text, digits);
}

/* How many bytes the UTF-8 character at `at` has; 0: it is none. Reads no further than the NUL at the end. */
static size_t character(const unsigned char *at) {
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

/* A JSON string of at most so many characters. */
static void put_string(struct text *text, const char *string, size_t most) {
    const unsigned char *at = (const unsigned char *)string;
    put(text, "\"");
    for (; *at && most; most--) {
        size_t length = character(at);
        if (length == 0) {
            put(text, "\xEF\xBF\xBD");
            length = 1;
        } else if (*at == '"' || *at == '\\') {
            char escaped[] = {'\\', (char)*at};
            put_bytes(text, escaped, sizeof escaped);
        } else if (*at < 0x20) {
            char escaped[8];
            snprintf(escaped, sizeof escaped, "\\u%04x", *at);
            put(text, escaped);
        } else {
            put_bytes(text, (const char *)at, length);
        }
        at += length;
    }
    put(text, "\"");
}

/* JSON as the daemon writes it: one line, no spaces between. */

/* Where the value of an object's key begins; NULL: it has no such key. */
static const char *member(const char *object, const char *key) {
    size_t length = strlen(key);
    int depth = 0;
    for (const char *at = object; at && *at; at++) {
        if (*at == '{' || *at == '[') {
            depth++;
        } else if (*at == '}' || *at == ']') {
            if (--depth == 0)
                return NULL;
        } else if (*at == '"') {
            const char *name = ++at;
            while (*at && *at != '"')
                at += *at == '\\' && at[1] ? 2 : 1;
            if (!*at)
                return NULL;
            if (depth == 1 && at[1] == ':' && (size_t)(at - name) == length && memcmp(name, key, length) == 0)
                return at + 2;
        }
    }
    return NULL;
}

static bool is_string(const char *value, const char *word) {
    size_t length = strlen(word);
    return value && *value == '"' && strncmp(value + 1, word, length) == 0 && value[length + 1] == '"';
}

static void copy_id(char id[37], const char *value) {
    if (value && *value == '"' && strcspn(value + 1, "\"") == 36)
        memcpy(id, value + 1, 36);
}

/* The world */

static long long clock_ms(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool new_uuid(char id[37]) {
    unsigned char b[16];
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    bool read_all = fd >= 0 && read(fd, b, sizeof b) == (ssize_t)sizeof b;
    if (fd >= 0)
        close(fd);
    if (!read_all)
        return false;
    b[6] = (unsigned char)((b[6] & 0x0F) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3F) | 0x80);
    snprintf(id, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3],
             b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    return true;
}

/* The owner of this environment said no to telemetry. */
static bool said_no(void) {
    const char *opt_out = getenv("XYBRID_TELEMETRY_OPTOUT"), *track = getenv("DO_NOT_TRACK");
    return (track && strcmp(track, "1") == 0) ||
           (opt_out && (strcmp(opt_out, "1") == 0 || strcasecmp(opt_out, "true") == 0 || strcasecmp(opt_out, "yes") == 0));
}

static int connected_to(const char *path, int length) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (length < 0 || (size_t)length >= sizeof address.sun_path)
        return -1;
    memcpy(address.sun_path, path, (size_t)length);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        return -1;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0 &&
        connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

#ifdef __APPLE__
#define SYSTEM_SOCKET "/var/run/xybridd.sock"
#else
#define SYSTEM_SOCKET "/run/xybridd/xybridd.sock"
#endif

/* The variable's socket; or the user's, or the system's: the first that answers. */
static int find_daemon(void) {
    char path[sizeof((struct sockaddr_un *)0)->sun_path + 1];
    const char *named = getenv("XYBRIDD_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");
    if (named && *named)
        return connected_to(named, (int)strnlen(named, sizeof path));
    int length;
    if (runtime && *runtime)
        length = snprintf(path, sizeof path, "%s/xybridd/xybridd.sock", runtime);
    else
#ifdef __APPLE__
        length = snprintf(path, sizeof path, "%s/Library/Caches/TemporaryItems/xybridd/xybridd.sock",
                          getenv("HOME") ? getenv("HOME") : "");
#else
        length = snprintf(path, sizeof path, "/run/user/%lu/xybridd/xybridd.sock", (unsigned long)getuid());
#endif
    int fd = connected_to(path, length);
    return fd >= 0 ? fd : connected_to(SYSTEM_SOCKET, (int)strlen(SYSTEM_SOCKET));
}

/* Requests */

static struct text begin_request(xybridd *client, enum step step, const char *method) {
    struct text text = {client->request, 0, sizeof client->request, false};
    client->step = step;
    client->request_sent = 0;
    put(&text, "{\"jsonrpc\":\"2.0\",\"id\":");
    put_whole(&text, ++client->request_id);
    put(&text, ",\"method\":\"");
    put(&text, method);
    put(&text, "\",\"params\":{");
    return text;
}

static void finish_request(xybridd *client, struct text *text) {
    put(text, "}}\n");
    client->request_length = text->length;
}

static void say_hello(xybridd *client) {
    struct text text = begin_request(client, HELLO, "hello");
    put(&text, "\"app\":");
    put(&text, client->app);
    put(&text, ",\"app_version\":");
    put(&text, client->app_version);
    put(&text, ",\"client_id\":\"");
    put(&text, client->client_id);
    put(&text, "\"");
    finish_request(client, &text);
}

static void start_session(xybridd *client) {
    struct text text = begin_request(client, START, "session.start");
    put(&text, "\"session_id\":\"");
    put(&text, client->session_id);
    put(&text, "\",\"started_at_ms\":");
    put_whole(&text, client->started_at_ms);
    finish_request(client, &text);
}

static bool start_another_session(xybridd *client) {
    client->started_at_ms = (unsigned long long)clock_ms(CLOCK_REALTIME);
    return new_uuid(client->session_id);
}

static void end_session(xybridd *client) {
    struct text text = begin_request(client, END, "session.end");
    put(&text, "\"session_id\":\"");
    put(&text, client->session_id);
    put(&text, "\"");
    finish_request(client, &text);
}

static void send_batch(xybridd *client) {
    struct slot *slot = &client->slots[client->first];
    if (!slot->sealed) {
        slot->sealed = true;
        slot->dropped = client->dropped_untold;
        client->dropped_untold = 0;
    }
    struct text text = begin_request(client, BATCH, "record.batch");
    put(&text, "\"seq\":");
    put_whole(&text, client->seq);
    put(&text, ",\"session_id\":\"");
    put(&text, client->session_id);
    put(&text, "\",\"dropped\":");
    put_whole(&text, slot->dropped);
    /* More is waiting behind it, or somebody is: then it need not wait for company. */
    put(&text, client->hurry || client->used > 1 ? ",\"flush\":true,\"records\":[" : ",\"flush\":false,\"records\":[");
    put_bytes(&text, slot->records, slot->length);
    put(&text, "]");
    finish_request(client, &text);
}

static void retry_later(xybridd *client, long long after_ms) {
    client->next_try_ms = clock_ms(CLOCK_MONOTONIC) + after_ms;
}

static void disconnect(xybridd *client) {
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    client->step = AWAY;
    client->answer_length = 0;
    retry_later(client, client->retry_ms);
    client->retry_ms = client->retry_ms * 2 < LONGEST_RETRY_MS ? client->retry_ms * 2 : LONGEST_RETRY_MS;
}

/* Answers */

static void free_oldest(xybridd *client) {
    struct slot *slot = &client->slots[client->first];
    slot->length = slot->count = 0;
    slot->sealed = false;
    client->first = (client->first + 1) % SLOTS;
    client->used--;
}

static void acknowledged(xybridd *client) {
    client->counts.acknowledged += client->slots[client->first].count;
    client->seq++;
    free_oldest(client);
}

static void done(xybridd *client, const char *result) {
    enum step step = client->step;
    client->step = NOTHING;
    if (step == HELLO) {
        const char *last_seq = member(result, "last_seq");
        bool there = last_seq && strtoull(last_seq, NULL, 10) >= client->seq;
        if (there && client->used && client->slots[client->first].sealed)
            acknowledged(client);
        start_session(client);
    } else if (step == START) {
        /* After a day the session has a successor, and this is its id. */
        copy_id(client->session_id, member(result, "session_id"));
        client->retry_ms = FIRST_RETRY_MS;
        client->counts.connections++;
    } else if (step == BATCH) {
        copy_id(client->session_id, member(result, "session_id"));
        acknowledged(client);
    } else if (step == END) {
        client->ended = true;
    }
}

/* Not now: the same again later. Its session is over: into another. Never: it is given up, and its number free. */
static void refused(xybridd *client, const char *data) {
    const char *code = member(data, "code"), *retry_after_ms = member(data, "retry_after_ms");
    enum step step = client->step;
    client->step = NOTHING;
    if (is_string(code, "session_ended") || is_string(code, "unknown_session")) {
        if (client->ending && client->used == 0)
            client->ended = true; /* by us, and the answer got lost */
        else if (start_another_session(client))
            start_session(client);
        else
            disconnect(client);
        return;
    }
    bool again = is_string(code, "overloaded") || is_string(code, "storage_unavailable") || is_string(code, "internal");
    if (step == BATCH && !again) {
        client->counts.refused += client->slots[client->first].count;
        client->dropped_untold += client->slots[client->first].dropped;
        free_oldest(client);
        return;
    }
    if (step < NOTHING)
        disconnect(client);
    retry_later(client, retry_after_ms ? strtol(retry_after_ms, NULL, 10) : LONGEST_RETRY_MS);
}

static void hear_line(xybridd *client, const char *line) {
    const char *id = member(line, "id"), *error = member(line, "error"), *result = member(line, "result");
    if (client->step == AWAY || client->step == NOTHING || id == NULL)
        return; /* it was not asked for */
    /* An error without an id is about a line that could not be read: ours, since there is no other. */
    if (strtoul(id, NULL, 10) != client->request_id && strncmp(id, "null", 4) != 0)
        return;
    if (error)
        refused(client, member(error, "data"));
    else
        done(client, result);
}

static void hear(xybridd *client, const char *bytes, size_t length) {
    for (size_t i = 0; i < length && client->fd >= 0; i++) {
        if (bytes[i] == '\n') {
            client->answer[client->answer_length] = '\0';
            client->answer_length = 0;
            hear_line(client, client->answer);
        } else if (client->answer_length < sizeof client->answer - 1) {
            client->answer[client->answer_length++] = bytes[i];
        }
    }
}

/* One turn: whether something was done. */
static bool turn(xybridd *client) {
    bool due = clock_ms(CLOCK_MONOTONIC) >= client->next_try_ms;
    if (client->fd < 0) {
        if (!due)
            return false;
        client->fd = find_daemon();
        if (client->fd < 0) {
            disconnect(client);
            return false;
        }
        say_hello(client);
    }
    if (client->step == NOTHING && due) {
        if (client->used)
            send_batch(client);
        else if (client->ending && !client->ended)
            end_session(client);
    }
    bool busy = false;
    if (client->step != NOTHING && client->request_sent < client->request_length) {
        ssize_t sent = send(client->fd, client->request + client->request_sent,
                            client->request_length - client->request_sent, MSG_NOSIGNAL);
        if (sent > 0) {
            client->request_sent += (size_t)sent;
            busy = true;
        } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
            disconnect(client);
            return false;
        }
    }
    char bytes[4096];
    ssize_t got = recv(client->fd, bytes, sizeof bytes, 0);
    if (got > 0) {
        hear(client, bytes, (size_t)got);
        return true;
    }
    if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        disconnect(client);
        return false;
    }
    return busy;
}

static bool idle(const xybridd *client) {
    return client->used == 0 && (!client->ending || client->ended);
}

/* Until something may be done, at most `timeout_ms`. */
static void rest(const xybridd *client, long long timeout_ms) {
    long long until_try_ms = client->next_try_ms - clock_ms(CLOCK_MONOTONIC);
    bool waits_to_try = client->fd < 0 || (client->step == NOTHING && !idle(client));
    if (waits_to_try && until_try_ms < timeout_ms)
        timeout_ms = until_try_ms > 0 ? until_try_ms : 0;
    struct pollfd socket = {.fd = client->fd, .events = POLLIN};
    if (client->step != NOTHING && client->request_sent < client->request_length)
        socket.events |= POLLOUT;
    poll(&socket, client->fd >= 0 ? 1 : 0, (int)timeout_ms);
}

/* Work until all is done or the time is up; `idle_too`: also wait while there is nothing to do. */
static void work(xybridd *client, int timeout_ms, bool idle_too) {
    long long end_ms = clock_ms(CLOCK_MONOTONIC) + timeout_ms;
    for (;;) {
        while (turn(client))
            ;
        long long left_ms = end_ms - clock_ms(CLOCK_MONOTONIC);
        if (left_ms <= 0 || (idle(client) && !idle_too))
            return;
        rest(client, left_ms);
    }
}

/* Records */

/* The record's text goes to the end of the newest slot that has room. */
static bool keep(xybridd *client, const struct text *record) {
    client->counts.recorded++;
    struct slot *slot = &client->slots[(client->first + client->used + SLOTS - 1) % SLOTS];
    if (client->used == 0 || slot->sealed || slot->count == SLOT_RECORDS ||
        slot->length + 1 + record->length > sizeof slot->records) {
        if (client->used == SLOTS || record->full) {
            client->counts.dropped++;
            client->dropped_untold++;
            return false;
        }
        slot = &client->slots[(client->first + client->used++) % SLOTS];
    }
    if (slot->length)
        slot->records[slot->length++] = ',';
    memcpy(slot->records + slot->length, record->start, record->length);
    slot->length += record->length;
    slot->count++;
    return true;
}

static void put_time_and_model(struct text *text, const char *model_id, const char *version) {
    put(text, ",\"timestamp_ms\":");
    put_whole(text, (unsigned long long)clock_ms(CLOCK_REALTIME));
    if (model_id && *model_id) {
        put(text, ",\"model_id\":");
        put_string(text, model_id, MODEL_CHARACTERS);
    }
    if (version) {
        put(text, ",\"version\":");
        put_string(text, version, VERSION_CHARACTERS);
    }
}

static bool is_amount(double number) { return number >= 0 && number <= LARGEST_EXACT; } /* not NaN either */

static void put_key(struct text *text, bool *first, const char *key) {
    put(text, *first ? ",\"stats\":{\"" : ",\"");
    put(text, key);
    put(text, "\":");
    *first = false;
}

/* One of these words; what is none would have the daemon refuse the whole batch. */
static void put_word(struct text *text, bool *first, const char *key, const char *word, const char *const *known) {
    for (; word && *known; known++)
        if (strcmp(word, *known) == 0) {
            put_key(text, first, key);
            put_string(text, word, strlen(word));
        }
}

static void put_stats(struct text *text, const struct xybridd_stats *stats) {
    static const char *const targets[] = {"local", "cloud", "fallback", NULL};
    static const char *const hardware[] = {"cpu", "gpu", "npu", NULL};
    const struct {
        const char *key;
        double number;
    } numbers[] = {{"tokens_per_second", stats->tokens_per_second},
                   {"samples_per_second", stats->samples_per_second},
                   {"time_to_first_token_ms", stats->time_to_first_token_ms}};
    const struct {
        const char *key;
        unsigned long number;
    } wholes[] = {{"memory_peak_mb", stats->memory_peak_mb},
                  {"input_tokens", stats->input_tokens},
                  {"output_tokens", stats->output_tokens}};
    bool first = true;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].number > 0 && is_amount(numbers[i].number)) {
            put_key(text, &first, numbers[i].key);
            put_number(text, numbers[i].number);
        }
    for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++)
        if (wholes[i].number > 0 && is_amount((double)wholes[i].number)) {
            put_key(text, &first, wholes[i].key);
            put_whole(text, wholes[i].number);
        }
    put_word(text, &first, "execution_target", stats->execution_target, targets);
    put_word(text, &first, "hardware_used", stats->hardware_used, hardware);
    if (!first)
        put(text, "}");
}

/* The face */

xybridd *xybridd_open(const char *app, const char *app_version) {
    xybridd *client = calloc(1, sizeof *client);
    if (client == NULL)
        return NULL;
    client->fd = -1;
    client->seq = 1;
    client->retry_ms = FIRST_RETRY_MS;
    client->declined = said_no();
    struct text name = {client->app, 0, sizeof client->app, false};
    put_string(&name, app && *app ? app : "app", 128);
    struct text version = {client->app_version, 0, sizeof client->app_version, false};
    put_string(&version, app_version ? app_version : "", 128);
    if (name.full || version.full || !new_uuid(client->client_id) || !start_another_session(client)) {
        free(client);
        return NULL;
    }
    return client;
}

bool xybridd_inference(xybridd *client, const char *model_id, const char *version, double latency_ms,
                       const struct xybridd_stats *stats) {
    char bytes[4096];
    struct text text = {bytes, 0, sizeof bytes, false};
    if (client == NULL || client->declined || model_id == NULL || !*model_id || !is_amount(latency_ms))
        return false;
    put(&text, "{\"type\":\"inference\",\"latency_ms\":");
    put_number(&text, latency_ms);
    put_time_and_model(&text, model_id, version ? version : "");
    if (stats)
        put_stats(&text, stats);
    put(&text, "}");
    bool kept = keep(client, &text);
    xybridd_pump(client, 0);
    return kept;
}

bool xybridd_error(xybridd *client, const char *message, const char *model_id, const char *version) {
    char bytes[16 * 1024];
    struct text text = {bytes, 0, sizeof bytes, false};
    if (client == NULL || client->declined || message == NULL)
        return false;
    put(&text, "{\"type\":\"error\",\"error\":");
    put_string(&text, message, ERROR_CHARACTERS);
    put_time_and_model(&text, model_id, version);
    put(&text, "}");
    bool kept = keep(client, &text);
    xybridd_pump(client, 0);
    return kept;
}

void xybridd_pump(xybridd *client, int timeout_ms) {
    if (client && !client->declined)
        work(client, timeout_ms, true);
}

bool xybridd_flush(xybridd *client, int timeout_ms) {
    if (client == NULL || client->declined)
        return true;
    client->hurry = true;
    work(client, timeout_ms, false);
    client->hurry = false;
    return client->used == 0;
}

bool xybridd_end(xybridd *client, int timeout_ms) {
    if (client == NULL || client->counts.recorded + client->counts.connections == 0)
        return true;
    client->ending = client->hurry = true;
    client->ended = false;
    work(client, timeout_ms, false);
    return idle(client);
}

struct xybridd_counts xybridd_counted(const xybridd *client) {
    return client ? client->counts : (struct xybridd_counts){0};
}

const char *xybridd_session_id(const xybridd *client) { return client ? client->session_id : ""; }

void xybridd_free(xybridd *client) {
    if (client && client->fd >= 0)
        close(client->fd);
    free(client);
}
