/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "shared/h2-conn.h"
#include "tests/unit/test.h"

typedef struct Side {
        H2Conn *conn;
        H2Stream *stream;
        unsigned n_headers, n_end, n_close, n_closed;
        int closed_error;
        size_t n_data, to_send;
        bool echo, hold, keep_conn;
} Side;

/* Sends what is left of to_send zeros. */
static void push(Side *side) {
        static const char zeros[16 * 1024];

        while (side->to_send > 0) {
                ssize_t k = h2_stream_write(side->stream, zeros, MIN(side->to_send, sizeof(zeros)));

                ASSERT_OK(k);
                if (k == 0)
                        return;
                side->to_send -= (size_t) k;
        }

        ASSERT_OK(h2_stream_end(side->stream));
}

static void on_headers(H2Stream *st, bool end, void *userdata) {
        Side *side = userdata;

        side->n_headers++;
        side->stream = st;
        if (side->echo)
                ASSERT_OK(h2_stream_respond(st, 200, NULL, 0, false));
        if (side->echo && side->to_send > 0)
                push(side);
}

static void on_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        Side *side = userdata;

        side->n_data += n;
        if (side->echo)
                ASSERT_EQ(h2_stream_write(st, data, n), n);
        if (!side->hold)
                h2_stream_consume(st, n);
}

static void on_end(H2Stream *st, void *userdata) {
        Side *side = userdata;

        side->n_end++;
        if (side->echo)
                ASSERT_OK(h2_stream_end(st));
}

static void on_writable(H2Stream *st, void *userdata) {
        push(userdata);
}

static void on_close(H2Stream *st, uint32_t error, void *userdata) {
        Side *side = userdata;

        ASSERT_EQ(side->n_closed, 0);
        side->n_close++;
        side->stream = NULL;
}

static void on_closed(H2Conn *c, int error, void *userdata) {
        Side *side = userdata;

        side->n_closed++;
        side->closed_error = error;
        ASSERT_NULL(h2_conn_session(c));
        if (!side->keep_conn)
                side->conn = h2_conn_free(side->conn);
}

static const H2ConnHandlers handlers = {
        .h2 = { .on_headers = on_headers,
                .on_data = on_data,
                .on_end = on_end,
                .on_writable = on_writable,
                .on_close = on_close },
        .on_closed = on_closed,
};

static sd_event* setup(Side *client, Side *server) {
        sd_event *e = NULL;
        int pair[2];

        ASSERT_OK(sd_event_new(&e));
        ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        ASSERT_OK(h2_conn_new(e, pair[0], false, &handlers, client, NULL, 0, &client->conn));
        ASSERT_OK(h2_conn_new(e, pair[1], true, &handlers, server, NULL, 0, &server->conn));
        ASSERT_EQ(h2_conn_fd(client->conn), pair[0]);
        return e;
}

static void settle(sd_event *e) {
        while (sd_event_run(e, 0) > 0)
                ;
}

static void request(Side *client, bool end) {
        ASSERT_OK(h2_session_request(h2_conn_session(client->conn), "POST", "/", NULL, 0, end, NULL,
                                     &client->stream));
}

TEST(echo) {
        Side client = {}, server = { .echo = true };
        sd_event *e = setup(&client, &server);

        request(&client, false);
        ASSERT_EQ(h2_stream_write(client.stream, "hello", 5), 5);
        ASSERT_OK(h2_stream_end(client.stream));
        settle(e);
        ASSERT_EQ(server.n_data, 5);
        ASSERT_EQ(client.n_data, 5);
        ASSERT_EQ(client.n_end, 1);
        ASSERT_EQ(client.n_close, 1);
        ASSERT_EQ(server.n_close, 1);

        client.conn = h2_conn_free(client.conn);
        settle(e);
        ASSERT_EQ(client.n_closed, 0);
        ASSERT_EQ(server.n_closed, 1);
        ASSERT_EQ(server.closed_error, 0);
        ASSERT_NULL(server.conn);
        sd_event_unref(e);
}

/* Much more than any buffer holds, both ways; the reader of one way begins late. */
TEST(bulk) {
        Side client = { .to_send = 8 * MIB }, server = { .echo = true, .to_send = 5 * MIB, .hold = true };
        sd_event *e = setup(&client, &server);

        server.echo = false;
        request(&client, false);
        push(&client);
        settle(e);
        ASSERT_EQ(server.n_data, H2_WINDOW_BYTES);
        ASSERT_OK(h2_stream_respond(server.stream, 200, NULL, 0, false));
        push(&server);
        settle(e);
        ASSERT_EQ(client.n_data, 5 * MIB);

        server.hold = false;
        h2_stream_consume(server.stream, server.n_data);
        settle(e);
        ASSERT_EQ(server.n_data, 8 * MIB);
        ASSERT_EQ(client.n_close, 1);
        ASSERT_EQ(server.n_close, 1);

        h2_conn_free(client.conn);
        h2_conn_free(server.conn);
        sd_event_unref(e);
}

TEST(end_with_open_streams) {
        Side client = { .keep_conn = true }, server = {};
        sd_event *e = setup(&client, &server);

        for (unsigned i = 0; i < 3; i++)
                request(&client, false);
        settle(e);
        ASSERT_EQ(server.n_headers, 3);

        server.conn = h2_conn_free(server.conn);
        ASSERT_EQ(server.n_close, 3);
        ASSERT_EQ(server.n_closed, 0);
        settle(e);
        ASSERT_EQ(client.n_close, 3);
        ASSERT_EQ(client.n_closed, 1);
        ASSERT_EQ(client.closed_error, 0);

        /* kept by its owner */
        ASSERT_NOT_NULL(client.conn);
        client.conn = h2_conn_free(client.conn);
        sd_event_unref(e);
}

TEST(garbage) {
        static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

        for (int is_server = 0; is_server <= 1; is_server++) {
                Side side = {};
                sd_event *e = NULL;
                char buffer[1024];
                ssize_t n;
                int pair[2];

                ASSERT_OK(sd_event_new(&e));
                ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
                ASSERT_OK(h2_conn_new(e, pair[0], is_server, &handlers, &side, NULL, 0, &side.conn));
                if (!is_server)
                        request(&side, true);
                settle(e);
                ASSERT_EQ(send(pair[1], text, sizeof(text), 0), sizeof(text));
                settle(e);
                ASSERT_EQ(side.n_closed, 1);
                ASSERT_EQ(side.closed_error, -EPROTO);
                ASSERT_EQ(side.n_close, !is_server);

                /* a GOAWAY (type 7) was its last word; a client that does not even say hello gets none */
                n = recv(pair[1], buffer, sizeof(buffer), MSG_DONTWAIT);
                if (!is_server)
                        ASSERT_NOT_NULL(memmem(buffer, (size_t) n, "\7\0\0\0\0\0", 6));
                close_fd(pair[1]);
                sd_event_unref(e);
        }
}

/* Not a socket: a terminal, as the port of the agent is a character device. */
TEST(other_than_socket) {
        Side side = {};
        sd_event *e = NULL;
        char buffer[64];
        int pair[2], fd;

        ASSERT_OK(sd_event_new(&e));
        ASSERT_EQ(pipe2(pair, O_CLOEXEC | O_NONBLOCK), 0);
        fd = pair[1];
        ASSERT_OK(h2_conn_new(e, fd, false, &handlers, &side, NULL, 0, &side.conn));
        ASSERT_TRUE(sd_event_run(e, 0) > 0);
        ASSERT_EQ(read(pair[0], buffer, 24), 24);
        ASSERT_EQ(memcmp(buffer, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24), 0);
        close_fd(pair[0]);
        settle(e);
        ASSERT_EQ(side.n_closed, 1);
        sd_event_unref(e);
}

TEST(failure_keeps_the_fd) {
        H2Conn *conn = NULL;
        sd_event *e = NULL;
        int fd = open("/dev/null", O_RDWR | O_CLOEXEC), regular;
        Side side = {};

        ASSERT_OK(sd_event_new(&e));
        ASSERT_EQ(h2_conn_new(e, -EBADF, false, &handlers, &side, NULL, 0, &conn), -EBADF);
        regular = memfd_create("x", MFD_CLOEXEC);
        /* epoll takes no files */
        ASSERT_EQ(h2_conn_new(e, regular, false, &handlers, &side, NULL, 0, &conn), -EPERM);
        ASSERT_NULL(conn);
        ASSERT_TRUE(fcntl(regular, F_GETFD) >= 0);
        close_fd(regular);
        close_fd(fd);
        sd_event_unref(e);
}
