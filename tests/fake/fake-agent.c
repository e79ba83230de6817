/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "shared/event.h"
#include "shared/h2-conn.h"
#include "shared/h2-ring.h"
#include "shared/json-field.h"
#include "shared/protocol.h"
#include "tests/fake/fake-agent.h"

typedef enum Play {
        PLAY_NONE,
        PLAY_BODY, /* echo of the body */
        PLAY_IDENTITY,
        PLAY_PROCESS, /* the spec is awaited */
        PLAY_CAT,
        PLAY_YES,
        PLAY_FLOOD,
        PLAY_OTHER,
} Play;

typedef struct Stream {
        FakeAgent *agent;
        H2Stream *h2;
        Play play;
        H2Ring body;
        FrameDecoder decoder;
        bool pty;
        bool ended; /* nothing more to say once body is gone */
} Stream;

struct FakeAgent {
        sd_event *event;
        sd_event_source *restart;
        int fd;
        FakeAgentOptions options;
        H2Conn *conn;
        char *identity;
        unsigned n_identities, n_open, n_resets, n_pids;
        uint64_t bytes_sent;
};

static int on_restart(sd_event_source *s, void *userdata);

static void restart_later(FakeAgent *a) {
        (void) event_defer(a->event, &a->restart, PRIORITY_VMM, on_restart, a);
}

static void flush(Stream *st) {
        uint8_t buffer[4096];

        while (st->body.n > 0) {
                size_t n = MIN(st->body.n, sizeof(buffer));

                n = MIN(n, h2_stream_room(st->h2));
                if (n == 0)
                        return;
                h2_ring_get(&st->body, buffer, n);
                (void) h2_stream_write(st->h2, buffer, n);
        }
        if (st->ended)
                (void) h2_stream_end(st->h2);
}

static void say_frame(Stream *st, FrameType type, const void *data, size_t n) {
        uint8_t header[FRAME_HEADER_LEN];

        frame_header(header, type, (uint32_t) n);
        (void) h2_ring_put(&st->body, header, sizeof(header));
        (void) h2_ring_put(&st->body, data, n);
}

static void say_text(Stream *st, FrameType type, const char *text) {
        say_frame(st, type, text, strlen(text));
}

static void say_exit(Stream *st, int code) {
        char text[128];

        (void) snprintf(text, sizeof(text),
                        "{\"exit_code\":%i,\"signal\":0,\"reason\":\"exit\",\"duration_usec\":1}", code);
        say_text(st, FRAME_EXIT, text);
        st->ended = true;
}

static void yes(Stream *st) {
        char data[4096];
        uint8_t header[FRAME_HEADER_LEN];

        memset(data, 'y', sizeof(data));
        while (h2_stream_room(st->h2) >= sizeof(data) + FRAME_HEADER_LEN) {
                frame_header(header, FRAME_STDOUT, sizeof(data));
                (void) h2_stream_write(st->h2, header, sizeof(header));
                (void) h2_stream_write(st->h2, data, sizeof(data));
                st->agent->bytes_sent += sizeof(data);
        }
}

static void flood(Stream *st) {
        char data[4096];

        memset(data, 'f', sizeof(data));
        while (h2_stream_room(st->h2) >= sizeof(data)) {
                (void) h2_stream_write(st->h2, data, sizeof(data));
                st->agent->bytes_sent += sizeof(data);
        }
}

static void say_started(Stream *st) {
        FakeAgent *a = st->agent;
        char text[128];

        (void) h2_stream_respond(st->h2, 200, NULL, 0, /* end= */ false);
        a->n_pids++;
        (void) snprintf(text, sizeof(text), "{\"pid\":%u,\"tag\":\"%s-%08x\",\"pty\":%s}", a->n_pids,
                        st->pty ? "pty" : "proc", a->n_pids, st->pty ? "true" : "false");
        say_text(st, FRAME_STARTED, text);
}

static void answer_json(Stream *st, unsigned status, const char *text) {
        static const H2Header headers[] = { { "content-type", "application/json" } };

        (void) h2_stream_respond(st->h2, status, headers, ELEMENTSOF(headers), /* end= */ false);
        (void) h2_ring_put(&st->body, text, strlen(text));
        st->ended = true;
        flush(st);
}

static void play_echo(Stream *st, json_t *args) {
        json_t *item;
        size_t i;

        json_array_foreach(args, i, item) {
                const char *text = strempty(json_string_value(item));

                for (; strlen(text) > FRAME_PAYLOAD_MAX; text += FRAME_PAYLOAD_MAX)
                        say_frame(st, FRAME_STDOUT, text, FRAME_PAYLOAD_MAX);
                say_text(st, FRAME_STDOUT, text);
                say_text(st, FRAME_STDOUT, i + 1 < json_array_size(args) ? " " : "\n");
        }
        say_text(st, FRAME_STDERR, "err\n");
        say_exit(st, 0);
}

static void play(Stream *st, json_t *spec) {
        const char *cmd = json_string_value(json_object_get(spec, "cmd")) ?: "cat";
        FakeAgent *a = st->agent;

        st->play = PLAY_OTHER;
        st->pty = json_is_object(json_object_get(spec, "pty"));
        if (streq(cmd, "no-cwd")) {
                answer_json(st, 400,
                            "{\"error\":{\"code\":\"invalid-args\",\"message\":\"cwd: no such \\u001b[31mdirectory.\"}}");
                return;
        }
        if (streq(cmd, "reset")) {
                (void) h2_stream_reset(st->h2, H2_INTERNAL_ERROR);
                return;
        }
        if (streq(cmd, "drop")) {
                (void) h2_session_goaway(h2_conn_session(a->conn));
                restart_later(a);
                return;
        }
        if (streq(cmd, "garbage")) {
                (void) write(a->fd, "this is no frame of HTTP/2, is it? surely not.", 46);
                restart_later(a);
                return;
        }

        if (streq(cmd, "stuck")) {
                (void) !write(a->fd, "this is no frame of HTTP/2, is it? surely not.", 46);
                return;
        }

        say_started(st);
        if (streq(cmd, "echo"))
                play_echo(st, json_object_get(spec, "args"));
        else if (streq(cmd, "false"))
                say_exit(st, 1);
        else if (streq(cmd, "cat"))
                st->play = PLAY_CAT;
        else if (streq(cmd, "lie"))
                say_text(st, (FrameType) '!', "x");
        flush(st);
        if (streq(cmd, "yes")) {
                st->play = PLAY_YES;
                yes(st);
        }
}

/* Of a terminal: what is typed comes back, ^D ends it. */
static void take_typed(Stream *st, const void *data, size_t n) {
        say_frame(st, st->pty ? FRAME_PTY : FRAME_STDOUT, data, n);
        if (st->pty && memchr(data, 4, n))
                say_exit(st, 5);
}

static int on_frame(FrameType type, const void *payload, size_t n, void *userdata) {
        _cleanup_json_ json_t *spec = NULL;
        Stream *st = userdata;

        switch (type) {
        case FRAME_SPEC:
                if (json_parse_text(payload, n, &spec, NULL) < 0)
                        return -EPROTO;
                play(st, spec);
                return 0;
        case FRAME_STDIN:
                take_typed(st, payload, n);
                return 0;
        case FRAME_STDIN_EOF:
                say_exit(st, 0);
                return 0;
        default:
                return 0;
        }
}

/* Paths of files and selectors that mean something; false: none of them. */
static bool play_path(Stream *st, const char *path) {
        if (streq(path, "/processes/tty/attach?tail=1") || streq(path, "/processes/quiet/attach?tail=1")) {
                st->pty = !strstr(path, "quiet");
                st->play = PLAY_CAT;
                say_started(st);
                say_text(st, st->pty ? FRAME_PTY : FRAME_STDOUT, "tail");
                flush(st);
        } else if (streq(path, "/processes/brief/attach?tail=1")) {
                st->play = PLAY_OTHER;
                say_started(st);
                say_text(st, FRAME_STDOUT, "tail");
                say_exit(st, 3);
                flush(st);
        } else if (streq(path, "/processes") && streq(h2_stream_method(st->h2), "GET")) {
                st->play = PLAY_OTHER;
                answer_json(st, 200, "{\"processes\":[]}");
        } else if (strstr(path, "flood")) {
                st->play = PLAY_FLOOD;
                (void) h2_stream_respond(st->h2, 200, NULL, 0, /* end= */ false);
                flood(st);
        } else if (strstr(path, "nonesuch")) {
                st->play = PLAY_OTHER;
                answer_json(st, 404,
                            "{\"error\":{\"code\":\"not-found\",\"message\":\"No \\u001b[1msuch thing.\"}}");
        } else if (strstr(path, "mute"))
                st->play = PLAY_OTHER;
        else
                return false;
        return true;
}

static void on_headers(H2Stream *h2, bool end, void *userdata) {
        H2Header headers[] = { { "x-method", h2_stream_method(h2) }, { "x-path", h2_stream_path(h2) } };
        FakeAgent *a = userdata;
        Stream *st = calloc(1, sizeof(Stream));

        assert(st);
        *st = (Stream) { .agent = a, .h2 = h2 };
        h2_stream_set_userdata(h2, st);
        a->n_open++;
        if (play_path(st, h2_stream_path(h2)))
                return;
        if (streq(h2_stream_path(h2), "/identity"))
                st->play = PLAY_IDENTITY;
        else if (streq(h2_stream_path(h2), "/processes"))
                st->play = PLAY_PROCESS;
        else if (streq(h2_stream_path(h2), "/poweroff")) {
                (void) h2_stream_respond(h2, 204, NULL, 0, /* end= */ true);
                if (a->options.on_poweroff)
                        a->options.on_poweroff(a->options.userdata);
        } else {
                st->play = PLAY_BODY;
                (void) h2_stream_respond(h2, 200, headers, ELEMENTSOF(headers), /* end= */ false);
        }
}

static void on_data(H2Stream *h2, const void *data, size_t n, void *userdata) {
        Stream *st = h2_stream_userdata(h2);

        h2_stream_consume(h2, n);
        if (st->play == PLAY_FLOOD || st->play == PLAY_OTHER)
                return;
        if (st->play == PLAY_BODY || st->play == PLAY_IDENTITY)
                (void) h2_ring_put(&st->body, data, n);
        else if (frame_decoder_feed(&st->decoder, data, n, on_frame, st) < 0)
                (void) h2_stream_reset(h2, H2_INTERNAL_ERROR);
        if (st->play == PLAY_BODY || st->play == PLAY_CAT)
                flush(st);
}

static void take_identity(Stream *st) {
        FakeAgent *a = st->agent;
        char text[256];

        free(a->identity);
        a->identity = calloc(1, st->body.n + 1);
        assert(a->identity);
        h2_ring_get(&st->body, a->identity, st->body.n);
        a->n_identities++;
        (void) snprintf(text, sizeof(text),
                        "{\"version\":\"0.0-fake\",\"protocol\":%u,\"features\":[\"processes\",\"bad\\u0007name\"],\"id\":\"x\"}",
                        a->options.wrong_protocol ? 99 : AGENT_PROTOCOL_VERSION);
        answer_json(st, 200, text);
}

static void on_end(H2Stream *h2, void *userdata) {
        Stream *st = h2_stream_userdata(h2);

        if (st->play == PLAY_IDENTITY)
                take_identity(st);
        else if (st->play == PLAY_BODY) {
                st->ended = true;
                flush(st);
        }
}

static void on_writable(H2Stream *h2, void *userdata) {
        Stream *st = h2_stream_userdata(h2);

        if (st->play == PLAY_YES)
                yes(st);
        else if (st->play == PLAY_FLOOD)
                flood(st);
        else
                flush(st);
}

static void on_close(H2Stream *h2, uint32_t error, void *userdata) {
        Stream *st = h2_stream_userdata(h2);
        FakeAgent *a = userdata;

        a->n_open--;
        a->n_resets += error != H2_NO_ERROR;
        frame_decoder_done(&st->decoder);
        h2_ring_done(&st->body);
        free(st);
}

static void on_closed(H2Conn *c, int error, void *userdata) {
        FakeAgent *a = userdata;

        a->conn = h2_conn_free(a->conn);
        if (error == -EPROTO)
                restart_later(a);
}

static const H2ConnHandlers handlers = {
        .h2 = {
                .on_headers = on_headers,
                .on_data = on_data,
                .on_end = on_end,
                .on_writable = on_writable,
                .on_close = on_close,
        },
        .on_closed = on_closed,
};

static int on_restart(sd_event_source *s, void *userdata) {
        const H2Limits limits = { .streams_max = ((FakeAgent *) userdata)->options.streams_max };
        FakeAgent *a = userdata;
        int fd, r;

        a->conn = h2_conn_free(a->conn);
        fd = fcntl(a->fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return -errno;
        if (write(a->fd,
                  "junk before the byte "
                  "\x16",
                  22) != 22) {
                close(fd);
                return 0;
        }
        r = h2_conn_new(a->event, fd, /* server= */ true, &handlers, a, &limits, PRIORITY_VMM, &a->conn);
        if (r < 0)
                close(fd);
        return 0;
}

int fake_agent_new(sd_event *e, int fd, const FakeAgentOptions *options, FakeAgent **ret) {
        FakeAgent *a = calloc(1, sizeof(FakeAgent));

        if (!a)
                return -ENOMEM;
        *a = (FakeAgent) { .event = e, .fd = fd, .options = options ? *options : (FakeAgentOptions) {} };
        if (!a->options.silent)
                restart_later(a);
        *ret = a;
        return 0;
}

FakeAgent* fake_agent_free(FakeAgent *a) {
        if (!a)
                return NULL;
        a->restart = event_source_free(a->restart);
        a->conn = h2_conn_free(a->conn);
        (void) close_fd(a->fd);
        free(a->identity);
        free(a);
        return NULL;
}

unsigned fake_agent_n_identities(const FakeAgent *a) {
        return a->n_identities;
}

unsigned fake_agent_n_open(const FakeAgent *a) {
        return a->n_open;
}

unsigned fake_agent_n_resets(const FakeAgent *a) {
        return a->n_resets;
}

uint64_t fake_agent_bytes_sent(const FakeAgent *a) {
        return a->bytes_sent;
}

const char* fake_agent_last_identity(const FakeAgent *a) {
        return a->identity;
}
