/* The rules, which docs/clients.md gives with their reasons:
 *
 * - A record is written into a ring, a file that is mapped (xybridd_ring.h). It is not sent: the daemon reads the file,
 *   whose descriptor it gets with `ring.attach`. So the record survives the death of this app.
 * - The socket is for one request at a time: hello, ring.attach, ring.flush. Beside them, `ring.wake` wakes a reader.
 * - Whatever breaks, breaks the connection. The next one says hello and attaches the ring again.
 * - A ring without room takes no records: they are dropped, and a slot says how many. Two slots stay free for that, and
 *   for the end of the session.
 * - A ring whose table is full is retired when the daemon has read all of it; another one follows.
 */
#define _DEFAULT_SOURCE 1
#define _DARWIN_C_SOURCE 1

#include "xybridd.h"
#include "xybridd_ring.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* where there is none, ignore SIGPIPE in your app */
#endif

enum {
    REQUEST_BYTES = 4 * 1024,
    ANSWER_BYTES = 4 * 1024, /* of a longer line only the beginning is kept; what is looked for stands there */
    NAME_BYTES = 1024,       /* 128 characters as JSON, and the quotes */
    PATH_BYTES = 900,
    MODELS = 16,             /* whose entries are remembered */
    KEPT_SLOTS = 2,          /* for the end of the session, and what was dropped */
    FIRST_RETRY_MS = 25,
    LONGEST_RETRY_MS = 1000,
    UNWRITTEN_MS = 5
};

/* The answer that is awaited. */
enum step { AWAY, HELLO, ATTACH, NOTHING, FLUSH };

struct model {
    char *id, *version;
    uint32_t entry;
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

    xybridd_ring ring;
    bool has_ring, attached, table_full;
    long long next_ring_ms; /* monotonic; before that no ring is made */
    uint32_t session;       /* its entry; 0: it is not in the ring yet */
    struct model models[MODELS];
    uint64_t woken_at; /* the slot whose half of the ring the daemon was told of */
    unsigned long long dropped_untold;
    bool hurry, ended, declined;

    char app[NAME_BYTES]; /* as JSON */
    char app_version[NAME_BYTES];
    char plain_app[NAME_BYTES], plain_version[NAME_BYTES]; /* as given */
    char client_id[37], session_id[37];
    unsigned long long started_at_ms;
    struct xybridd_counts counts; /* without `acknowledged`; `refused`: of rings before this one */
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

/* A JSON string of at most so many characters. */
static void put_string(struct text *text, const char *string, size_t most) {
    const unsigned char *at = (const unsigned char *)string;
    put(text, "\"");
    for (; *at && most; most--) {
        size_t length = xr_character(at);
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
    unsigned char bytes[16];
    return xr_random_id(bytes, id);
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
    char boot_id[37];
    xr_boot_id(boot_id);
    put(&text, "\",\"boot_id\":\"");
    put(&text, boot_id);
    put(&text, "\"");
    finish_request(client, &text);
}

static void begin_attach(xybridd *client) {
    struct text text = begin_request(client, ATTACH, "ring.attach");
    finish_request(client, &text);
}

static void begin_flush(xybridd *client) {
    struct text text = begin_request(client, FLUSH, "ring.flush");
    put(&text, "\"ring_id\":\"");
    put(&text, client->ring.id);
    put(&text, "\",\"seq\":");
    put_whole(&text, xr_reserved(&client->ring.writer));
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
    client->attached = false;
    client->answer_length = 0;
    retry_later(client, client->retry_ms);
    client->retry_ms = client->retry_ms * 2 < LONGEST_RETRY_MS ? client->retry_ms * 2 : LONGEST_RETRY_MS;
}

/* Answers */

static void done(xybridd *client, const char *result) {
    enum step step = client->step;
    client->step = NOTHING;
    /* A session that was ended, or is a day old, has a successor: the answer has its id. */
    if (!client->ended)
        copy_id(client->session_id, member(result, "session_id"));
    if (step == ATTACH) {
        client->attached = true;
        client->retry_ms = FIRST_RETRY_MS;
        client->counts.connections++;
    } else if (step == FLUSH && xr_unread(&client->ring)) {
        retry_later(client, UNWRITTEN_MS); /* the daemon writes what is on its disk a moment later */
    }
}

/* Not now: the same again later. Anything else: from the beginning. */
static void refused(xybridd *client, const char *data) {
    const char *code = member(data, "code"), *retry_after_ms = member(data, "retry_after_ms");
    bool again = is_string(code, "overloaded") || is_string(code, "storage_unavailable") || is_string(code, "internal");
    bool connected = client->step > HELLO;
    client->step = NOTHING;
    if (!again || !connected)
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

/* Send what is left of the request; with the first byte of `ring.attach`, the file. */
static ssize_t send_request(xybridd *client) {
    struct iovec rest = {client->request + client->request_sent, client->request_length - client->request_sent};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } ancillary;
    struct msghdr message = {.msg_iov = &rest, .msg_iovlen = 1};
    if (client->step == ATTACH && client->request_sent == 0) {
        memset(&ancillary, 0, sizeof ancillary);
        message.msg_control = ancillary.space;
        message.msg_controllen = sizeof ancillary.space;
        struct cmsghdr *files = CMSG_FIRSTHDR(&message);
        files->cmsg_level = SOL_SOCKET;
        files->cmsg_type = SCM_RIGHTS;
        files->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(files), &client->ring.fd, sizeof(int));
    }
    return sendmsg(client->fd, &message, MSG_NOSIGNAL);
}

/* The daemon sleeps, or half of the ring is full. Lost when it does not read; its next visit finds the records too. */
static void wake_daemon(xybridd *client) {
    static const char line[] = "{\"jsonrpc\":\"2.0\",\"method\":\"ring.wake\"}\n";
    const uint64_t unread = xr_unread(&client->ring), last = xr_reserved(&client->ring.writer);
    const bool half = unread >= client->ring.slots / 2 && last >= client->woken_at + client->ring.slots / 4;
    if (!client->attached || client->request_sent < client->request_length || !(half || xr_asleep(&client->ring)))
        return;
    client->woken_at = last;
    ssize_t sent = send(client->fd, line, sizeof line - 1, MSG_NOSIGNAL);
    if (sent > 0 ? sent < (ssize_t)sizeof line - 1 : errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        disconnect(client);
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
    if (client->step == NOTHING && due && client->has_ring) {
        if (!client->attached)
            begin_attach(client);
        else if (client->hurry && xr_unread(&client->ring))
            begin_flush(client);
    }
    bool busy = false;
    if (client->step != NOTHING && client->request_sent < client->request_length) {
        ssize_t sent = send_request(client);
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

static bool idle(const xybridd *client) { return !client->has_ring || xr_unread(&client->ring) == 0; }

/* Until something may be done, at most `timeout_ms`. */
static void rest(const xybridd *client, long long timeout_ms) {
    long long until_try_ms = client->next_try_ms - clock_ms(CLOCK_MONOTONIC);
    bool waits_to_try = client->fd < 0 || (client->step == NOTHING && client->has_ring && (!client->attached || (client->hurry && !idle(client))));
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

/* The ring */

/* `$XYBRIDD_DATA_DIR/spool`, `$XDG_RUNTIME_DIR/xybridd/rings` or the spool in the user's data: the first that can be. */
static bool ring_folder(char path[PATH_BYTES]) {
    const char *apart = getenv("XYBRIDD_DATA_DIR"), *runtime = getenv("XDG_RUNTIME_DIR"), *home = getenv("HOME");
    const char *data = getenv("XDG_DATA_HOME");
    char users[64];
    int length;
    snprintf(users, sizeof users, "/run/user/%lu", (unsigned long)getuid());
    if (!runtime || !*runtime)
        runtime = users;
    if (apart && *apart)
        length = snprintf(path, PATH_BYTES, "%s/spool", apart);
    else if (access(runtime, W_OK) == 0)
        length = snprintf(path, PATH_BYTES, "%s/xybridd/rings", runtime);
#ifdef __APPLE__
    else
        length = snprintf(path, PATH_BYTES, "%s/Library/Application Support/xybridd/spool", home ? home : "");
    (void)data;
#else
    else if (data && *data)
        length = snprintf(path, PATH_BYTES, "%s/xybridd/spool", data);
    else
        length = snprintf(path, PATH_BYTES, "%s/.local/share/xybridd/spool", home ? home : "");
#endif
    if (length < 0 || length >= PATH_BYTES)
        return false;
    for (char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = '\0';
        mkdir(path, 0700);
        *at = '/';
    }
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

static void forget_models(xybridd *client) {
    for (unsigned i = 0; i < MODELS; i++) {
        free(client->models[i].id);
        free(client->models[i].version);
        client->models[i] = (struct model){NULL, NULL, 0};
    }
}

/* Everything in the ring is on the daemon's disk: it goes, with its file. */
static void finish_ring(xybridd *client) {
    client->counts.refused += xr_load(&client->ring, XR_REJECTED);
    xr_retire(&client->ring);
    unlink(client->ring.path);
    xr_close(&client->ring);
    forget_models(client);
    client->has_ring = client->attached = client->table_full = false;
    client->session = 0;
    client->woken_at = 0;
}

/* A ring with room for a record and the slots that stay free, in which the session has begun. */
static bool ready(xybridd *client) {
    if (client->has_ring && client->table_full && idle(client))
        finish_ring(client);
    if (!client->has_ring) {
        const long long now_ms = clock_ms(CLOCK_MONOTONIC);
        const struct xr_identity identity = {client->client_id, client->plain_app, client->plain_version, NULL, NULL};
        char folder[PATH_BYTES];
        if (now_ms < client->next_ring_ms)
            return false;
        client->next_ring_ms = now_ms + LONGEST_RETRY_MS;
        if (!ring_folder(folder) || xr_create(&client->ring, folder, &identity, XR_SLOTS, XR_TABLE_BYTES) != 0)
            return false;
        client->has_ring = true;
    }
    if (client->session == 0) {
        char start[24];
        snprintf(start, sizeof start, "%llu", client->started_at_ms);
        const char *strings[] = {client->session_id, start};
        client->session = xr_entry(&client->ring, XR_SESSION, 0, 2, strings);
        if (client->session == 0 ||
            xr_note(&client->ring, XR_SESSION_STARTED, client->session, 0, xr_now_s()) != XR_OK)
            return false;
    }
    if (client->table_full || !xr_has_room(&client->ring, 2 + KEPT_SLOTS))
        return false;
    if (client->dropped_untold && xr_has_room(&client->ring, 3 + KEPT_SLOTS) &&
        xr_note(&client->ring, XR_DROPPED, 0, client->dropped_untold, xr_now_s()) == XR_OK)
        client->dropped_untold = 0;
    return true;
}

static uint32_t new_entry(xybridd *client, enum xr_entry_kind kind, unsigned count, const char *const *strings) {
    const uint32_t entry = xr_entry(&client->ring, kind, 0, count, strings);
    client->table_full = client->table_full || entry == 0;
    return entry;
}

static uint32_t model_entry(xybridd *client, const char *id, const char *version) {
    unsigned place = 5381;
    for (const char *at = id; *at; at++)
        place = place * 33 + (unsigned char)*at;
    for (const char *at = version; *at; at++)
        place = place * 33 + (unsigned char)*at;
    struct model *model = &client->models[place % MODELS];
    if (model->id && strcmp(model->id, id) == 0 && strcmp(model->version, version) == 0)
        return model->entry;
    const char *strings[] = {id, version};
    const uint32_t entry = new_entry(client, XR_MODEL, 2, strings);
    char *id_kept = strdup(id), *version_kept = strdup(version);
    if (entry && id_kept && version_kept) {
        free(model->id);
        free(model->version);
        *model = (struct model){id_kept, version_kept, entry};
    } else {
        free(id_kept);
        free(version_kept);
    }
    return entry;
}

/* Records */

/* Count a record that was written, or was not, and do what can be done at once of the connection's work. */
static bool recorded(xybridd *client, bool written) {
    client->counts.recorded++;
    if (!written) {
        client->counts.dropped++;
        client->dropped_untold++;
    }
    if (client->fd < 0 || client->step != NOTHING || (client->has_ring && !client->attached))
        xybridd_pump(client, 0);
    if (client->has_ring)
        wake_daemon(client);
    return written;
}

static unsigned index_of(const char *word, const char *const *known) {
    for (unsigned i = 0; word && known[i]; i++)
        if (strcmp(word, known[i]) == 0)
            return i + 1;
    return 0;
}

/* What is 0 is not said, nor is what cannot be right. */
static struct xr_stats stats_of(const struct xybridd_stats *given) {
    static const char *const targets[] = {"local", "cloud", "fallback", NULL};
    static const char *const hardware[] = {"cpu", "gpu", "npu", NULL};
    struct xr_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.tokens_per_second = given->tokens_per_second;
    stats.time_to_first_token_ms = given->time_to_first_token_ms;
    stats.samples_per_second = given->samples_per_second;
    stats.memory_peak_mb = (double)given->memory_peak_mb;
    stats.input_tokens = (uint32_t)given->input_tokens;
    stats.output_tokens = (uint32_t)given->output_tokens;
    const struct {
        unsigned bit;
        double number, most;
    } numbers[] = {{XR_INPUT_TOKENS, (double)given->input_tokens, UINT32_MAX},
                   {XR_OUTPUT_TOKENS, (double)given->output_tokens, UINT32_MAX},
                   {XR_TOKENS_PER_SECOND, given->tokens_per_second, XR_LARGEST},
                   {XR_TIME_TO_FIRST_TOKEN_MS, given->time_to_first_token_ms, XR_LARGEST},
                   {XR_SAMPLES_PER_SECOND, given->samples_per_second, XR_LARGEST},
                   {XR_MEMORY_PEAK_MB, (double)given->memory_peak_mb, XR_LARGEST}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].number > 0 && numbers[i].number <= numbers[i].most)
            stats.present |= numbers[i].bit;
    stats.hardware = (enum xr_hardware)index_of(given->hardware_used, hardware);
    stats.target = (enum xr_target)index_of(given->execution_target, targets);
    return stats;
}

/* The face */

xybridd *xybridd_open(const char *app, const char *app_version) {
    xybridd *client = (xybridd *)calloc(1, sizeof *client);
    if (client == NULL)
        return NULL;
    client->fd = -1;
    client->retry_ms = FIRST_RETRY_MS;
    client->declined = said_no();
    client->started_at_ms = (unsigned long long)clock_ms(CLOCK_REALTIME);
    snprintf(client->plain_app, sizeof client->plain_app, "%s", app && *app ? app : "app");
    snprintf(client->plain_version, sizeof client->plain_version, "%s", app_version ? app_version : "");
    struct text name = {client->app, 0, sizeof client->app, false};
    put_string(&name, client->plain_app, 128);
    struct text version = {client->app_version, 0, sizeof client->app_version, false};
    put_string(&version, client->plain_version, 128);
    if (name.full || version.full || !new_uuid(client->client_id) || !new_uuid(client->session_id)) {
        free(client);
        return NULL;
    }
    return client;
}

bool xybridd_inference(xybridd *client, const char *model_id, const char *version, double latency_ms,
                       const struct xybridd_stats *stats) {
    if (client == NULL || client->declined || client->ended || model_id == NULL || !*model_id ||
        !xr_is_amount(latency_ms))
        return false;
    bool written = false;
    if (ready(client)) {
        const uint32_t model = model_entry(client, model_id, version ? version : "");
        const struct xr_stats known = stats ? stats_of(stats) : (struct xr_stats){.present = 0};
        written = xr_inference(&client->ring, model, latency_ms, xr_now_s(), stats ? &known : NULL) == XR_OK;
    }
    return recorded(client, written);
}

bool xybridd_error(xybridd *client, const char *message, const char *model_id, const char *version) {
    if (client == NULL || client->declined || client->ended || message == NULL)
        return false;
    bool written = false;
    if (ready(client)) {
        const char *names[] = {model_id, version};
        const bool named = model_id && *model_id;
        const uint32_t model = named ? new_entry(client, XR_MODEL, version ? 2 : 1, names) : 0;
        const uint32_t text = named && !model ? 0 : new_entry(client, XR_ERROR_TEXT, 1, &message);
        written = text && xr_error(&client->ring, text, model, XR_CATEGORY_NONE, xr_now_s()) == XR_OK;
    }
    return recorded(client, written);
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
    return idle(client);
}

bool xybridd_end(xybridd *client, int timeout_ms) {
    if (client == NULL || !client->has_ring)
        return client == NULL || client->dropped_untold == 0;
    const long long end_ms = clock_ms(CLOCK_MONOTONIC) + timeout_ms;
    bool home = xybridd_flush(client, timeout_ms); /* the last answer that says which session it is */
    if (!client->ended) {
        if (client->dropped_untold)
            xr_note(&client->ring, XR_DROPPED, 0, client->dropped_untold, xr_now_s());
        xr_note(&client->ring, XR_SESSION_ENDED, client->session, 0, xr_now_s());
        client->dropped_untold = 0;
        client->ended = true;
    }
    if (home) {
        const long long left_ms = end_ms - clock_ms(CLOCK_MONOTONIC);
        home = xybridd_flush(client, left_ms > 0 ? (int)left_ms : 0);
    }
    if (home)
        finish_ring(client);
    return home;
}

struct xybridd_counts xybridd_counted(const xybridd *client) {
    struct xybridd_counts counts = {0};
    if (client) {
        counts = client->counts;
        counts.refused += client->has_ring ? xr_load(&client->ring, XR_REJECTED) : 0;
        counts.acknowledged = counts.recorded - counts.dropped - counts.refused;
        counts.acknowledged -= client->has_ring ? xr_waiting(&client->ring) : 0;
    }
    return counts;
}

const char *xybridd_session_id(const xybridd *client) { return client ? client->session_id : ""; }

void xybridd_free(xybridd *client) {
    if (client == NULL)
        return;
    if (client->fd >= 0)
        close(client->fd);
    if (client->has_ring)
        xr_disown(&client->ring); /* whoever finds the file delivers it */
    forget_models(client);
    free(client);
}
