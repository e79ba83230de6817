/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A client of data.sock that says anything, before an agent that answers in good order. First byte: lowest
 * bit clear: the rest are its bytes, in pieces; set: a proper session whose requests, bodies, ends, resets
 * and reading the input chooses. However it behaves, a second client beside it is served.
 */

#include <string.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/strings.h"
#include "monitor/passthrough.h"
#include "shared/h2-conn.h"
#include "tests/fake/fake-agent.h"
#include "tests/fuzz/fuzz.h"

#define STREAMS 8U
#define PROPER  1U

typedef struct World {
        sd_event *event;
        FakeAgent *agent;
        AgentLink *link;
        Passthrough *passthrough;
        bool ready;

        int raw;
        H2Conn *client; /* proper */
        H2Stream *streams[STREAMS];
        bool reads;
        unsigned n_requests, n_closed;

        H2Conn *other; /* well-behaved */
        unsigned other_status;
} World;

/* Some turns of the loop: an answer without end never comes to rest. */
static void settle(World *w) {
        for (unsigned i = 0; i < 50 && sd_event_run(w->event, 0) > 0; i++)
                ;
}

static void pair(int ret[static 2]) {
        assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret) >= 0);
}

/* The link */

static void on_ready(AgentLink *l, json_t *info, void *userdata) {
        World *w = userdata;

        w->ready = true;
        passthrough_set_agent(w->passthrough, l);
}

static void on_lost(AgentLink *l, const char *text, void *userdata) {
}

static const AgentLinkHandlers link_handlers = { .on_ready = on_ready, .on_lost = on_lost };

/* The clients */

static void ignore_headers(H2Stream *st, bool end, void *userdata) {
}

static void ignore(H2Stream *st, void *userdata) {
}

static void client_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        if (((World *) userdata)->reads)
                h2_stream_consume(st, n);
}

static void client_close(H2Stream *st, uint32_t error, void *userdata) {
        World *w = userdata;

        w->n_closed++;
        for (size_t i = 0; i < STREAMS; i++)
                if (w->streams[i] == st)
                        w->streams[i] = NULL;
}

static const H2ConnHandlers client_handlers = {
        .h2 = { .on_headers = ignore_headers,
                .on_data = client_data,
                .on_end = ignore,
                .on_writable = ignore,
                .on_close = client_close },
};

static void other_headers(H2Stream *st, bool end, void *userdata) {
        ((World *) userdata)->other_status = h2_stream_status(st);
}

static void other_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        h2_stream_consume(st, n);
}

static void other_close(H2Stream *st, uint32_t error, void *userdata) {
}

static const H2ConnHandlers other_handlers = {
        .h2 = { .on_headers = other_headers,
                .on_data = other_data,
                .on_end = ignore,
                .on_writable = ignore,
                .on_close = other_close },
};

/* What the input says */

static void request(World *w, size_t slot, uint8_t argument, FuzzInput *in) {
        static const char *const methods[] = { "GET", "POST", "PUT", "CONNECT" };
        static const char *const paths[] = { "/processes", "/files?path=x", "/identity", "/poweroff",
                                             "/flood",     "/nonesuch",     "/mute",     "//",
                                             "*" };
        char path[128] = "/", value[32] = "";
        const H2Header headers[] = { { "x-test", value } };
        const uint8_t *p;
        size_t n;

        p = fuzz_bytes(in, argument % 64, &n);
        memcpy(path + 1, p, n);
        p = fuzz_bytes(in, argument / 64 * 8, &n);
        memcpy(value, p, n);
        if (!h2_conn_session(w->client) || w->streams[slot])
                return;
        if (h2_session_request(h2_conn_session(w->client), methods[argument % ELEMENTSOF(methods)],
                               argument & 32 ? path : paths[argument % ELEMENTSOF(paths)], headers,
                               argument & 16 ? 1 : 0, argument & 8, NULL, &w->streams[slot]) >= 0)
                w->n_requests++;
        else
                w->streams[slot] = NULL;
}

/* [what and to which stream] [argument] bytes… */
static void client_step(World *w, FuzzInput *in) {
        uint8_t what = fuzz_byte(in), argument = fuzz_byte(in);
        size_t slot = what / 8 % STREAMS, n;
        const uint8_t *p;

        if (what % 8 == 0)
                request(w, slot, argument, in);
        else if (what % 8 == 1)
                settle(w);
        else if (what % 8 == 2)
                w->reads = argument & 1;
        else if (!w->streams[slot])
                return;
        else if (what % 8 <= 5) {
                p = fuzz_bytes(in, argument, &n);
                (void) h2_stream_write(w->streams[slot], p, n);
        } else if (what % 8 == 6)
                (void) h2_stream_end(w->streams[slot]);
        else
                (void) h2_stream_reset(w->streams[slot], argument);
}

static void be_raw(World *w, FuzzInput *in) {
        while (in->n > 0) {
                size_t n = fuzz_byte(in);
                const uint8_t *p = fuzz_bytes(in, n, &n);

                (void) send(w->raw, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
                settle(w);
        }
}

static void be_proper(World *w, FuzzInput *in) {
        int fd = TAKE_FD(w->raw);

        assert(h2_conn_new(w->event, fd, /* server= */ false, &client_handlers, w, NULL, 0, &w->client) >=
               0);
        while (in->n > 0)
                client_step(w, in);
        settle(w);
}

/* The other one gets its answer, unless the agent itself was lost to it. */
static void serve_other(World *w) {
        H2Stream *st;
        int fds[2];

        pair(fds);
        assert(passthrough_add_client(w->passthrough, fds[0]) >= 0);
        assert(h2_conn_new(w->event, fds[1], /* server= */ false, &other_handlers, w, NULL, 0, &w->other) >=
               0);
        assert(h2_session_request(h2_conn_session(w->other), "GET", "/files?path=y", NULL, 0, true, NULL,
                                  &st) >= 0);
        for (unsigned i = 0; i < 1000 && w->other_status == 0; i++)
                settle(w);
        assert(w->other_status == 200);
}

static void world_new(World *w) {
        int fds[2];

        *w = (World) { .reads = true, .raw = -EBADF };
        assert(sd_event_new(&w->event) >= 0);
        pair(fds);
        assert(fake_agent_new(w->event, fds[1], NULL, &w->agent) >= 0);
        assert(passthrough_new(w->event, -EBADF, NULL, NULL, &w->passthrough) >= 0);
        assert(agent_link_new(w->event, fds[0], NULL, &link_handlers, w, &w->link) >= 0);
        settle(w);
        assert(w->ready);
        pair(fds);
        assert(passthrough_add_client(w->passthrough, fds[0]) >= 0);
        w->raw = fds[1];
}

static void world_done(World *w) {
        w->client = h2_conn_free(w->client);
        w->raw = close_fd(w->raw);
        w->other = h2_conn_free(w->other);
        for (unsigned i = 0; i < 1000 && passthrough_n_clients(w->passthrough) > 0; i++)
                settle(w);
        assert(w->n_closed == w->n_requests);
        assert(passthrough_n_streams(w->passthrough) == 0 && passthrough_n_clients(w->passthrough) == 0);
        passthrough_set_agent(w->passthrough, NULL);
        w->link = agent_link_free(w->link);
        w->passthrough = passthrough_free(w->passthrough);
        w->agent = fake_agent_free(w->agent);
        sd_event_unref(w->event);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        FuzzInput in = { data, n };
        World w;

        world_new(&w);
        if (fuzz_byte(&in) & PROPER)
                be_proper(&w, &in);
        else
                be_raw(&w, &in);
        serve_other(&w);
        world_done(&w);
        return 0;
}
