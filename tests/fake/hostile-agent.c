/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * An agent that root in the guest has replaced: it boots as ours does and says who it is when asked, and
 * lies in every other answer. What lie is told stands in the request: the command of a process
 * ("hostile:flood"), or the last part of a file's path ("/hostile/flood"). GET /processes lies as the last
 * process did. tests/integration/it-hostile-agent.py puts it into an initrd.
 */

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>

#include "agent/agent.h"
#include "agent/request.h"
#include "basic/fd.h"
#include "basic/strings.h"
#include "shared/h2.h"
#include "shared/json-field.h"
#include "shared/protocol.h"

#define BODY_MAX (1 * MIB)

typedef struct Lie Lie;

typedef struct Stream {
        Agent *agent;
        H2Stream *h2;
        const Lie *lie;
        char *body;
        size_t n_body;
        bool begun;
} Stream;

/* Tells once (begin), and again whenever there is room (go_on; NULL: that was all). */
struct Lie {
        const char *name;
        void (*begin)(Stream *st);
        void (*go_on)(Stream *st);
};

static char last_lie[64];

/* What lies are made of. */

static void head(Stream *st, unsigned status, bool end) {
        static const H2Header headers[] = { { "content-type", "application/octet-stream" } };

        (void) h2_stream_respond(st->h2, status, headers, ELEMENTSOF(headers), end);
}

static void say(Stream *st, const void *data, size_t n) {
        (void) h2_stream_write(st->h2, data, n);
}

static void say_frame(Stream *st, char type, uint32_t claimed, const char *payload) {
        uint8_t header[FRAME_HEADER_LEN];

        frame_header(header, (FrameType) type, claimed);
        say(st, header, sizeof(header));
        say(st, payload, strlen(payload));
}

static void frame(Stream *st, char type, const char *payload) {
        say_frame(st, type, (uint32_t) strlen(payload), payload);
}

static void started(Stream *st) {
        head(st, 200, false);
        frame(st, FRAME_STARTED, "{\"pid\":7,\"tag\":\"proc-00000007\"}");
}

static void exited(Stream *st) {
        frame(st, FRAME_EXIT, "{\"exit_code\":0,\"signal\":0,\"reason\":\"exited\",\"duration_usec\":1}");
        (void) h2_stream_end(st->h2);
}

/* The port itself, past the HTTP/2 session. */
static int port_fd(void) {
        DIR *dir = opendir("/proc/self/fd");
        struct dirent *e;
        int found = -EBADF;

        while (dir && found < 0 && (e = readdir(dir))) {
                char target[256];
                ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);

                if (n > 0) {
                        target[n] = '\0';
                        if (startswith(target, "/dev/vport"))
                                found = atoi(e->d_name);
                }
        }
        if (dir)
                (void) closedir(dir);
        return found;
}

static void say_raw(const void *data, size_t n, unsigned times) {
        int fd = port_fd();

        for (unsigned i = 0; i < times; i++)
                for (size_t done = 0; done < n;) {
                        ssize_t k = write(fd, (const char *) data + done, n - done);

                        if (k < 0 && errno != EAGAIN)
                                return;
                        if (k < 0)
                                (void) usleep(1000);
                        else
                                done += (size_t) k;
                }
}

/* Lies about processes. */

static void frame_too_long(Stream *st) {
        started(st);
        say_frame(st, FRAME_STDOUT, UINT32_MAX, "x");
}

static void frame_unknown(Stream *st) {
        started(st);
        frame(st, '?', "x");
}

static void frame_cut(Stream *st) {
        started(st);
        say_frame(st, FRAME_STDOUT, 100, "x");
        (void) h2_stream_end(st->h2);
}

static void not_started(Stream *st) {
        head(st, 200, false);
        frame(st, FRAME_STDOUT, "x");
        exited(st);
}

static void started_garbage(Stream *st) {
        head(st, 200, false);
        frame(st, FRAME_STARTED, "{\"pid\":[[[[[[[[");
        exited(st);
}

static void started_lies(Stream *st) {
        head(st, 200, false);
        frame(st, FRAME_STARTED, "{\"pid\":-1,\"tag\":\"../../\\u0000\\n\"}");
        exited(st);
}

static void exit_lies(Stream *st) {
        started(st);
        frame(st, FRAME_EXIT,
              "{\"exit_code\":4711,\"signal\":-9,\"reason\":\"\\u001b[2J\",\"duration_usec\":-1}");
        (void) h2_stream_end(st->h2);
}

static void exit_twice(Stream *st) {
        started(st);
        frame(st, FRAME_EXIT, "{\"exit_code\":0,\"signal\":0,\"reason\":\"exited\",\"duration_usec\":1}");
        frame(st, FRAME_STDOUT, "more");
        exited(st);
}

static void no_exit(Stream *st) {
        started(st);
        (void) h2_stream_end(st->h2);
}

static void silence(Stream *st) {
}

static void text_that_is_none(Stream *st) {
        started(st);
        frame(st, FRAME_STDOUT, "\xff\xfe\xc0\x80\xed\xa0\x80");
        exited(st);
}

static void flood(Stream *st) {
        static char block[FRAME_PAYLOAD_MAX + FRAME_HEADER_LEN];

        frame_header((uint8_t *) block, FRAME_STDOUT, FRAME_PAYLOAD_MAX);
        while (h2_stream_room(st->h2) >= sizeof(block))
                say(st, block, sizeof(block));
}

static void flood_of_nothing(Stream *st) {
        while (h2_stream_room(st->h2) >= FRAME_HEADER_LEN)
                frame(st, FRAME_STDOUT, "");
}

static void reset(Stream *st) {
        started(st);
        (void) h2_stream_reset(st->h2, H2_INTERNAL_ERROR);
}

static void odd_status(Stream *st) {
        head(st, 599, false);
        say(st, "{\"error\":{\"code\":\"not-found\",\"message\":\"\\u001b[31m\\u0000\xff\"}}", 46);
        (void) h2_stream_end(st->h2);
}

static void endless_error(Stream *st) {
        head(st, 500, false);
}

/* Lies below the requests. */

static void garbage(Stream *st) {
        char noise[4096];

        for (size_t i = 0; i < sizeof(noise); i++)
                noise[i] = (char) (i * 2654435761U >> 7);
        started(st);
        say_raw(noise, sizeof(noise), 64);
}

static void ping_flood(Stream *st) {
        static const uint8_t ping[17] = { 0, 0, 8, 6, 0 };

        say_raw(ping, sizeof(ping), 4000);
}

static void settings_flood(Stream *st) {
        static const uint8_t settings[15] = { 0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1 };

        say_raw(settings, sizeof(settings), 4000);
}

static void window_overflow(Stream *st) {
        static const uint8_t update[13] = { 0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff };

        say_raw(update, sizeof(update), 2);
}

static void data_for_nobody(Stream *st) {
        static const uint8_t data[] = { 0, 0, 4, 0, 0, 0, 0, 0x7f, 0xff, 1, 2, 3, 4 };

        say_raw(data, sizeof(data), 1000);
}

static void push_promise(Stream *st) {
        static const uint8_t promise[] = { 0, 0, 5, 5, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0x82 };

        say_raw(promise, sizeof(promise), 1);
}

static void die(Stream *st) {
        (void) reboot(RB_AUTOBOOT);
}

static void hang(Stream *st) {
        for (;;)
                (void) pause();
}

static void console_flood(Stream *st) {
        started(st);
        exited(st);
        for (unsigned i = 0; i < 500; i++)
                (void) dprintf(STDERR_FILENO, "\033]0;title\007\033[2J%0200u\n", i);
}

/* Lies about files. */

#define ENTRY(name, type)                                                  \
        "{\"name\":\"" name "\",\"path\":\"/x/" name "\",\"type\":\"" type \
        "\",\"size\":1,\"mode\":420,\"permissions\":\"-rw-r--r--\",\"owner\":\"root\",\"group\":\"root\",\"modified_at\":1}\n"

static void entry_dotdot(Stream *st) {
        static const char text[] = ENTRY("../../etc/passwd", "file");

        head(st, 200, false);
        say(st, text, strlen(text));
        (void) h2_stream_end(st->h2);
}

static void entry_type(Stream *st) {
        static const char text[] = ENTRY("a", "door");

        head(st, 200, false);
        say(st, text, strlen(text));
        (void) h2_stream_end(st->h2);
}

static void entry_garbage(Stream *st) {
        head(st, 200, false);
        say(st, "[[[[\n\xff\n", 7);
        (void) h2_stream_end(st->h2);
}

static void entry_numbers(Stream *st) {
        static const char text[] =
                        "{\"name\":\"a\",\"path\":\"/a\",\"type\":\"file\",\"size\":-1,\"mode\":99999999999999999999,\"permissions\":7,\"owner\":null}\n";

        head(st, 200, false);
        say(st, text, strlen(text));
        (void) h2_stream_end(st->h2);
}

static void entries_flood(Stream *st) {
        static const char text[] = ENTRY("a", "file");

        while (h2_stream_room(st->h2) >= strlen(text))
                say(st, text, strlen(text));
}

static void line_flood(Stream *st) {
        char block[4096];

        memset(block, '{', sizeof(block));
        while (h2_stream_room(st->h2) >= sizeof(block))
                say(st, block, sizeof(block));
}

static void begin_answer(Stream *st) {
        head(st, 200, false);
}

static void cut(Stream *st) {
        head(st, 200, false);
        say(st, "half", 4);
        (void) h2_stream_reset(st->h2, H2_INTERNAL_ERROR);
}

static void no_content(Stream *st) {
        head(st, 204, true);
}

static const Lie lies[] = {
        { "frame-too-long", frame_too_long },
        { "frame-unknown", frame_unknown },
        { "frame-cut", frame_cut },
        { "not-started", not_started },
        { "started-garbage", started_garbage },
        { "started-lies", started_lies },
        { "exit-lies", exit_lies },
        { "exit-twice", exit_twice },
        { "no-exit", no_exit },
        { "silence", silence },
        { "text", text_that_is_none },
        { "flood", started, flood },
        { "flood-of-nothing", started, flood_of_nothing },
        { "reset", reset },
        { "odd-status", odd_status },
        { "endless-error", endless_error, line_flood },
        { "garbage", garbage },
        { "ping-flood", ping_flood },
        { "settings-flood", settings_flood },
        { "window-overflow", window_overflow },
        { "data-for-nobody", data_for_nobody },
        { "push-promise", push_promise },
        { "console-flood", console_flood },
        { "die", die },
        { "hang", hang },
        { "entry-dotdot", entry_dotdot },
        { "entry-type", entry_type },
        { "entry-garbage", entry_garbage },
        { "entry-numbers", entry_numbers },
        { "entries-flood", begin_answer, entries_flood },
        { "line-flood", begin_answer, line_flood },
        { "cut", cut },
        { "no-content", no_content },
        { "good", NULL },
};

static void good(Stream *st) {
        started(st);
        frame(st, FRAME_STDOUT, "good\n");
        exited(st);
}

/* Requests. */

static void tell(Stream *st, const char *name) {
        size_t n = strcspn(name, "\"&%? ");

        for (size_t i = 0; i < ELEMENTSOF(lies); i++)
                if (strlen(lies[i].name) == n && strncmp(lies[i].name, name, n) == 0)
                        st->lie = &lies[i];
        if (!st->lie || st->begun)
                return;

        st->begun = true;
        (void) snprintf(last_lie, sizeof(last_lie), "%s", st->lie->name);
        (st->lie->begin ?: good)(st);
        if (st->lie->go_on)
                st->lie->go_on(st);
}

static void identity(Stream *st) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_json_ json_t *object = NULL;
        _cleanup_free_ char *text = NULL;

        if (st->n_body > 0)
                (void) identity_apply(&st->agent->identity, st->body, st->n_body, &fault);
        object = identity_to_json(&st->agent->identity);
        text = object ? json_dumps(object, JSON_COMPACT) : NULL;
        head(st, 200, false);
        say(st, strempty(text), strlen(strempty(text)));
        (void) h2_stream_end(st->h2);
}

static void on_headers(H2Stream *h2, bool end, void *userdata) {
        Stream *st = h2_stream_userdata(h2) ?: calloc(1, sizeof(Stream));
        const char *path = h2_stream_path(h2), *mark = strstr(path, "hostile");

        if (!st)
                return;
        st->agent = userdata;
        st->h2 = h2;
        h2_stream_set_userdata(h2, st);
        if (streq(path, "/poweroff"))
                st->agent->poweroff = true;
        if (startswith(path, "/files") && mark)
                tell(st, mark + strlen("hostile") + (mark[7] == '%' ? 3 : 1));
        else if (streq(path, "/processes") && streq(h2_stream_method(h2), "GET"))
                tell(st, last_lie);
}

static void on_data(H2Stream *h2, const void *data, size_t n, void *userdata) {
        Stream *st = h2_stream_userdata(h2);
        char *body = st && n < BODY_MAX - st->n_body ? realloc(st->body, st->n_body + n + 1) : NULL;
        const char *mark;

        h2_stream_consume(h2, n);
        if (!body)
                return;
        st->body = body;
        memcpy(body + st->n_body, data, n);
        st->n_body += n;
        body[st->n_body] = '\0';

        mark = memmem(body, st->n_body, "hostile:", 8);
        if (startswith(h2_stream_path(h2), "/processes") && mark)
                tell(st, mark + 8);
}

static void on_end(H2Stream *h2, void *userdata) {
        Stream *st = h2_stream_userdata(h2);

        if (st && streq(h2_stream_path(h2), "/identity"))
                identity(st);
}

static void on_writable(H2Stream *h2, void *userdata) {
        Stream *st = h2_stream_userdata(h2);

        if (st && st->lie && st->lie->go_on)
                st->lie->go_on(st);
}

static void on_close(H2Stream *h2, uint32_t error, void *userdata) {
        Stream *st = h2_stream_userdata(h2);

        if (st)
                free(st->body);
        free(st);
}

/* In the place of src/agent/request.c's. */
const H2Handlers request_handlers = {
        .on_headers = on_headers,
        .on_data = on_data,
        .on_end = on_end,
        .on_writable = on_writable,
        .on_close = on_close,
};
