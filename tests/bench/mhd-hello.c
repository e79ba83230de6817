/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The baseline of the REST latency: libmicrohttpd alone in an sd-event loop, with the flags of wrenn-restd
 * and an answer of the given size. Prints its port.
 */

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-event.h>

#include "basic/macro.h"

typedef struct Hello {
        struct MHD_Daemon *mhd;
        struct MHD_Response *response;
        sd_event_source *timer;
} Hello;

static void pump(Hello *h) {
        MHD_UNSIGNED_LONG_LONG timeout_msec;

        (void) MHD_run(h->mhd);
        if (MHD_get_timeout(h->mhd, &timeout_msec) == MHD_YES && timeout_msec == 0)
                (void) sd_event_source_set_enabled(h->timer, SD_EVENT_ONESHOT);
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        pump(userdata);
        return 0;
}

static int on_again(sd_event_source *s, void *userdata) {
        pump(userdata);
        return 0;
}

static enum MHD_Result on_request(void *userdata, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data, size_t *n_data,
                                  void **request) {
        static int seen;
        Hello *h = userdata;

        if (!*request) {
                *request = &seen;
                return MHD_YES;
        }
        return MHD_queue_response(connection, 200, h->response);
}

int main(int argc, char *argv[]) {
        static char body[65536];
        Hello h = {};
        sd_event *e = NULL;
        size_t n = argc > 1 ? (size_t) atoi(argv[1]) : 2;
        const union MHD_DaemonInfo *info;
        int r;

        memset(body, 'x', sizeof(body));
        h.response = MHD_create_response_from_buffer(MIN(n, sizeof(body)), body, MHD_RESPMEM_PERSISTENT);
        (void) MHD_add_response_header(h.response, "Content-Type", "application/json");

        r = sd_event_default(&e);
        if (r < 0)
                return EXIT_FAILURE;
        h.mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE, 0, NULL, NULL,
                                 on_request, &h, MHD_OPTION_SOCK_ADDR,
                                 &(struct sockaddr_in) { .sin_family = AF_INET,
                                                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK) },
                                 MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
        if (!h.mhd)
                return EXIT_FAILURE;

        r = sd_event_add_defer(e, &h.timer, on_again, &h);
        if (r >= 0)
                r = sd_event_source_set_enabled(h.timer, SD_EVENT_OFF);
        info = MHD_get_daemon_info(h.mhd, MHD_DAEMON_INFO_EPOLL_FD);
        if (r >= 0)
                r = sd_event_add_io(e, NULL, info->epoll_fd, EPOLLIN, on_io, &h);
        if (r < 0)
                return EXIT_FAILURE;

        info = MHD_get_daemon_info(h.mhd, MHD_DAEMON_INFO_BIND_PORT);
        printf("%u\n", (unsigned) info->port);
        (void) fflush(stdout);
        return sd_event_loop(e) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
