/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A guest that says anything to the monitor: link, passthrough, processes and transfers together. First
 * byte: lowest bit clear: the bytes behind the ready byte are its HTTP/2. Set: a proper session that answers
 * the identity (or not) and then does with our streams what the input says, so that hostile contents reach
 * the layers above HTTP/2. A client of data.sock and a process of control.sock are on the other side all the
 * time, with one more flag also an attached process, a transfer from the agent and one to it, in that order.
 */

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/strings.h"
#include "monitor/agent-link.h"
#include "monitor/passthrough.h"
#include "monitor/process.h"
#include "monitor/transfer.h"
#include "shared/h2-conn.h"
#include "shared/protocol.h"
#include "tests/fuzz/fuzz.h"

#define STREAMS 8U

enum {
        PROPER = 1 << 0,
        BAD_IDENTITY = 1 << 1,
        NO_CLIENT = 1 << 2,
        NO_PROCESS = 1 << 3,
        WITH_STDIN = 1 << 4,
        READ_OUTPUT = 1 << 5,
        TERMINAL = 1 << 6,
        MORE_CALLS = 1 << 7,
};

typedef struct Called {
        unsigned n_started, n_ended;
        int fds[3];
} Called;

typedef struct World {
        uint8_t flags;
        sd_event *event;
        AgentLink *link;
        Passthrough *passthrough;
        GuestProcess *process, *attached;
        Transfer *get, *put;
        Called process_called, attached_called, get_called, put_called;

        H2Conn *client;
        unsigned n_requests, n_closed;

        int guest;                  /* raw */
        H2Conn *agent;              /* proper */
        H2Stream *streams[STREAMS]; /* of the agent */
} World;

/* The processes */

static void on_started(GuestProcess *g, int r, const GuestProcessStart *start, const Fault *fault,
                       void *userdata) {
        Called *c = userdata;

        assert(c->n_started++ == 0);
        assert((r < 0) == (fault && fault_is_set(fault)));
        assert((r < 0) == !start);
        if (!start)
                return;
        assert(tag_is_valid(start->tag) || !*start->tag);
        assert(start->n_fds == (start->pty ? 1 : start->n_fds == 3 ? 3 : 2));
        for (size_t i = 0; i < start->n_fds; i++)
                c->fds[i] = TAKE_FD(start->fds[i]);
}

static void on_exited(GuestProcess *g, uint32_t pid, const char *tag, const GuestProcessEnd *end,
                      void *userdata) {
        Called *c = userdata;

        assert(c->n_started == 1 && c->n_ended++ == 0);
        assert(utf8_is_valid(tag, strlen(tag)));
        assert(end && end->exit_code >= -1 && end->exit_code <= 255);
}

static const GuestProcessHandlers process_handlers = { on_started, on_exited };

/* The transfers */

static void on_transfer_started(Transfer *t, int r, const Fault *fault, void *userdata) {
        Called *c = userdata;

        assert(c->n_started++ == 0);
        assert((r < 0) ==
               (fault && fault_is_set(fault) && utf8_is_valid(fault->message, strlen(fault->message))));
        c->n_ended += r < 0;
}

static void on_transfer_bytes(Transfer *t, uint64_t bytes, void *userdata) {
}

static void on_transfer_ended(Transfer *t, uint64_t bytes, int r, const Fault *fault, void *userdata) {
        Called *c = userdata;

        assert(c->n_ended++ == 0);
        assert((r < 0) ==
               (fault && fault_is_set(fault) && utf8_is_valid(fault->message, strlen(fault->message))));
}

static const TransferHandlers transfer_handlers = { on_transfer_started, on_transfer_bytes,
                                                    on_transfer_ended };

/* Both ends of a socket; ours is kept for the input's end. */
static void start_transfer(World *w, AgentLink *l, bool put) {
        Transfer **t = put ? &w->put : &w->get;
        Called *c = put ? &w->put_called : &w->get_called;
        TransferSpec spec = { .method = (char *) (put ? "PUT" : "GET"),
                              .path = (char *) "/files?path=x",
                              .body = put,
                              .answer = !put,
                              .report = put,
                              .shared = !put,
                              .answer_max = put ? 0 : 4096 };
        int fds[2];

        assert((put ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds)
                    : pipe2(fds, O_CLOEXEC | O_NONBLOCK)) >= 0);
        c->fds[0] = fds[0];
        if (put)
                assert(write(fds[0], "some bytes", 10) == 10 && shutdown(fds[0], SHUT_WR) >= 0);
        (void) transfer_start(w->event, l, &spec, &fds[1], 1, &transfer_handlers, c, t, NULL);
        (void) close_fd(fds[1]);
}

/* The link */

static void on_ready(AgentLink *l, json_t *info, void *userdata) {
        static char *argv[] = { (char *) "true", NULL };
        World *w = userdata;

        assert(json_string_length(json_object_get(info, "version")) <= AGENT_TEXT_MAX);
        assert(json_array_size(json_object_get(info, "features")) <= AGENT_FEATURES_MAX);

        if (!(w->flags & NO_PROCESS) && !w->process)
                (void) guest_process_start(w->event, l,
                                           &(GuestProcessSpec) { .argv = argv,
                                                                 .cols = w->flags & TERMINAL ? 80 : 0,
                                                                 .rows = 24,
                                                                 .with_stdin = w->flags & WITH_STDIN },
                                           &process_handlers, &w->process_called, &w->process, NULL);
        if (!(w->flags & MORE_CALLS) || w->attached)
                return;
        (void) guest_process_attach(w->event, l, "tag", &process_handlers, &w->attached_called, &w->attached,
                                    NULL);
        start_transfer(w, l, /* put= */ false);
        start_transfer(w, l, /* put= */ true);
}

static void on_lost(AgentLink *l, const char *text, void *userdata) {
        assert(text);
}

static const AgentLinkHandlers link_handlers = { on_ready, on_lost };

/* The client */

static void client_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        h2_stream_consume(st, n);
}

static void client_headers(H2Stream *st, bool end, void *userdata) {
}

static void client_end(H2Stream *st, void *userdata) {
}

static void client_close(H2Stream *st, uint32_t error, void *userdata) {
        ((World *) userdata)->n_closed++;
}

static const H2ConnHandlers client_handlers = {
        .h2 = { .on_headers = client_headers,
                .on_data = client_data,
                .on_end = client_end,
                .on_close = client_close },
};

static void client_request(World *w) {
        H2Stream *st;

        if (!w->client || !h2_conn_session(w->client) ||
            h2_session_request(h2_conn_session(w->client), "POST", "/processes", NULL, 0, false, NULL, &st) <
                            0)
                return;

        w->n_requests++;
        (void) h2_stream_write(st, "hello", 5);
        if (w->n_requests % 2)
                (void) h2_stream_end(st);
}

/* The agent, proper */

static void agent_headers(H2Stream *st, bool end, void *userdata) {
        static const char good[] = "{\"version\":\"1\",\"protocol\":1,\"features\":[\"a\"]}";
        World *w = userdata;

        if (streq(h2_stream_path(st), "/identity") && !(w->flags & BAD_IDENTITY)) {
                (void) h2_stream_respond(st, 200, NULL, 0, false);
                (void) h2_stream_write(st, good, sizeof(good) - 1);
                (void) h2_stream_end(st);
                return;
        }

        for (size_t i = 0; i < STREAMS; i++)
                if (!w->streams[i]) {
                        w->streams[i] = st;
                        return;
                }
}

static void agent_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        h2_stream_consume(st, n);
}

static void agent_close(H2Stream *st, uint32_t error, void *userdata) {
        World *w = userdata;

        for (size_t i = 0; i < STREAMS; i++)
                if (w->streams[i] == st)
                        w->streams[i] = NULL;
}

static const H2ConnHandlers agent_handlers = {
        .h2 = { .on_headers = agent_headers,
                .on_data = agent_data,
                .on_end = client_end,
                .on_close = agent_close },
};

static void settle(World *w) {
        for (unsigned i = 0; i < 1000 && sd_event_run(w->event, 0) > 0; i++)
                ;
}

/* One thing the proper agent does: [what and to which stream] [argument] bytes… */
static void agent_step(World *w, FuzzInput *in) {
        static const unsigned statuses[] = { 200, 200, 400, 503 };
        uint8_t what = fuzz_byte(in), argument = fuzz_byte(in);
        H2Stream *st = w->streams[what / 8 % STREAMS];
        const uint8_t *p;
        size_t n;

        switch (what % 8) {
        case 0:
                client_request(w);
                return;

        case 1:
                settle(w);
                return;

        case 2:
                if (argument == 0 && h2_conn_session(w->agent))
                        (void) h2_session_goaway(h2_conn_session(w->agent));
                return;
        }

        if (!st)
                return;

        switch (what % 8) {
        case 3:
                (void) h2_stream_respond(st, statuses[argument % ELEMENTSOF(statuses)], NULL, 0,
                                         argument & 128);
                return;

        case 4:
        case 5:
                p = fuzz_bytes(in, argument, &n);
                (void) h2_stream_write(st, p, n);
                return;

        case 6:
                (void) h2_stream_end(st);
                return;

        case 7:
                (void) h2_stream_reset(st, argument);
                return;
        }
}

static void be_proper(World *w, FuzzInput *in) {
        int fd = TAKE_FD(w->guest);

        assert(h2_conn_new(w->event, fd, true, &agent_handlers, w, NULL, 0, &w->agent) >= 0);
        settle(w);
        client_request(w);
        settle(w);
        while (in->n > 0)
                agent_step(w, in);
        settle(w);
}

static void be_raw(World *w, FuzzInput *in) {
        client_request(w);
        while (in->n > 0) {
                size_t n = fuzz_byte(in);
                const uint8_t *p = fuzz_bytes(in, n, &n);

                (void) send(w->guest, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
                settle(w);
        }
}

static void world_new(World *w, uint8_t flags) {
        const char ready = AGENT_READY_BYTE;
        int pair[2];

        const Called uncalled = { .fds = { -EBADF, -EBADF, -EBADF } };

        *w = (World) { .flags = flags,
                       .process_called = uncalled,
                       .attached_called = uncalled,
                       .get_called = uncalled,
                       .put_called = uncalled };
        assert(sd_event_new(&w->event) >= 0);
        assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) >= 0);
        w->guest = pair[1];
        assert(agent_link_new(w->event, pair[0], NULL, &link_handlers, w, &w->link) >= 0);
        assert(passthrough_new(w->event, -EBADF, NULL, NULL, &w->passthrough) >= 0);
        passthrough_set_agent(w->passthrough, w->link);

        if (!(flags & NO_CLIENT)) {
                assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) >= 0);
                assert(passthrough_add_client(w->passthrough, pair[0]) >= 0);
                assert(h2_conn_new(w->event, pair[1], false, &client_handlers, w, NULL, 0, &w->client) >= 0);
        }

        assert(write(w->guest, &ready, 1) == 1);
        settle(w);
}

static void world_done(World *w) {
        Called *calls[] = { &w->process_called, &w->attached_called, &w->get_called, &w->put_called };

        w->agent = h2_conn_free(w->agent);
        w->guest = close_fd(w->guest);
        settle(w);
        w->process = guest_process_free(w->process);
        w->attached = guest_process_free(w->attached);
        w->get = transfer_free(w->get);
        w->put = transfer_free(w->put);
        for (size_t i = 0; i < ELEMENTSOF(calls); i++)
                close_many(calls[i]->fds, 3);
        passthrough_set_agent(w->passthrough, NULL);
        w->link = agent_link_free(w->link);
        settle(w);
        w->passthrough = passthrough_free(w->passthrough);
        w->client = h2_conn_free(w->client);
        assert(w->n_closed == w->n_requests);
        sd_event_unref(w->event);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        FuzzInput in = { data, n };
        World w;

        world_new(&w, fuzz_byte(&in));
        if (w.flags & PROPER)
                be_proper(&w, &in);
        else
                be_raw(&w, &in);
        world_done(&w);
        return 0;
}
