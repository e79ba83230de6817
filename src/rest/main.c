/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* wrenn-restd: takes its sockets from systemd, connects to the system bus, runs the loop. See rest.h. */

#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "rest/rest.h"
#include "shared/event.h"

#define DRAIN_USEC (5 * USEC_PER_SEC)

static RestConfig arg_config;

typedef struct Main {
        sd_event *event;
        RestServer *server;
        sd_event_source *drain_timer;
} Main;

static void help(void) {
        printf("wrenn-restd [OPTIONS...]\n\n"
               "The REST front end of wrennd. Its sockets come from systemd (sd_listen_fds(3)).\n\n"
               "  -h --help                       Show this help\n"
               "     --version                    Show the version\n"
               "     --host=NAME                  Serve this name in Host, too (repeatable; also $WRENN_API_HOSTS)\n"
               "     --connections=N              Connections at most\n"
               "     --connections-per-peer=N     Connections of one address at most\n"
               "     --connections-per-key=N      Connections with one API key at most\n"
               "     --websockets-per-capsule=N   WebSockets of one capsule at most\n"
               "     --first-byte-timeout=TIME    Until a connection says something\n"
               "     --head-timeout=TIME          Until a request's head is whole\n"
               "     --idle-timeout=TIME          Between requests\n"
               "     --write-timeout=TIME         Until a client takes bytes again\n"
               "     --stream-timeout=TIME        The same for streams, and until an upload goes on\n");
}

static int parse_argument(int c) {
        switch (c) {
        case 'H':
                return strv_extend(&arg_config.gate.hosts, optarg);
        case 'c':
                return parse_u32(optarg, &arg_config.gate.connections_max);
        case 'p':
                return parse_u32(optarg, &arg_config.gate.connections_per_peer_max);
        case 'k':
                return parse_u32(optarg, &arg_config.connections_per_key_max);
        case 's':
                return parse_u32(optarg, &arg_config.websockets_per_capsule_max);
        case 'f':
                return parse_usec(optarg, &arg_config.gate.first_byte_usec);
        case 'e':
                return parse_usec(optarg, &arg_config.gate.head_usec);
        case 'i':
                return parse_usec(optarg, &arg_config.gate.idle_usec);
        case 'w':
                return parse_usec(optarg, &arg_config.gate.write_stall_usec);
        case 'S':
                return parse_usec(optarg, &arg_config.gate.stream_idle_usec);
        default:
                return -EINVAL;
        }
}

/* 1: go on, 0: all done, or -errno. */
static int parse_arguments(int argc, char *argv[]) {
        static const struct option options[] = { { "help", no_argument, NULL, 'h' },
                                                 { "version", no_argument, NULL, 'V' },
                                                 { "host", required_argument, NULL, 'H' },
                                                 { "connections", required_argument, NULL, 'c' },
                                                 { "connections-per-peer", required_argument, NULL, 'p' },
                                                 { "connections-per-key", required_argument, NULL, 'k' },
                                                 { "websockets-per-capsule", required_argument, NULL, 's' },
                                                 { "first-byte-timeout", required_argument, NULL, 'f' },
                                                 { "head-timeout", required_argument, NULL, 'e' },
                                                 { "idle-timeout", required_argument, NULL, 'i' },
                                                 { "write-timeout", required_argument, NULL, 'w' },
                                                 { "stream-timeout", required_argument, NULL, 'S' },
                                                 {} };
        _cleanup_strv_ char **names = NULL;
        int c, r;

        names = strv_split(strempty(getenv("WRENN_API_HOSTS")), " ");
        STRV_FOREACH(name, names) {
                r = strv_extend(&arg_config.gate.hosts, *name);
                if (r < 0)
                        return r;
        }

        while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
                if (c == 'h') {
                        help();
                        return 0;
                }
                if (c == 'V') {
                        printf("wrenn-restd %s\n", WRENN_VERSION);
                        return 0;
                }
                r = parse_argument(c);
                if (r < 0) {
                        if (optarg)
                                log_error("Invalid value '%s'.", optarg);
                        return r;
                }
        }
        if (optind < argc) {
                log_error("Unexpected argument '%s'.", argv[optind]);
                return -EINVAL;
        }
        return 1;
}

static int add_listeners(RestServer *s) {
        int n = sd_listen_fds(/* unset_environment= */ true);

        if (n < 0)
                return log_error_errno(n, "Failed to take the sockets: %m");
        if (n == 0) {
                log_error("No sockets were passed; start wrenn-restd.socket or wrenn-restd-tcp.socket.");
                return -ENOTCONN;
        }

        for (int i = 0; i < n; i++) {
                int fd = SD_LISTEN_FDS_START + i, r;

                if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, /* listening= */ 1) <= 0) {
                        log_warning("A socket that was passed does not listen, ignoring.");
                        (void) close_fd(fd);
                        continue;
                }
                r = gate_add_listener(s->gate, fd);
                if (r < 0)
                        return log_error_errno(r, "Failed to listen: %m");
        }
        return 0;
}

static void on_drained(void *userdata) {
        Main *m = userdata;

        (void) sd_event_exit(m->event, 0);
}

static int on_drain_timeout(sd_event_source *s, uint64_t usec, void *userdata) {
        on_drained(userdata);
        return 0;
}

/* Requests that are under way get some seconds; new connections wait in the sockets for the next of us. */
static int on_terminate(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata) {
        Main *m = userdata;

        (void) sd_notify(0, "STOPPING=1");
        if (event_timer(m->event, &m->drain_timer, DRAIN_USEC, PRIORITY_EXIT, on_drain_timeout, m, "drain") <
            0)
                return sd_event_exit(m->event, 0);
        gate_drain(m->server->gate, on_drained, m);
        return 0;
}

static int make_event(Main *m) {
        static const int signals[] = { SIGTERM, SIGINT };
        sigset_t mask;
        int r;

        (void) sigemptyset(&mask);
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                (void) sigaddset(&mask, signals[i]);
        if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
                return -errno;

        r = sd_event_new(&m->event);
        if (r < 0)
                return r;
        for (size_t i = 0; i < ELEMENTSOF(signals); i++) {
                r = sd_event_add_signal(m->event, NULL, signals[i], on_terminate, m);
                if (r < 0)
                        return r;
        }
        return sd_event_set_watchdog(m->event, true);
}

static int run(Main *m) {
        sd_bus *bus = NULL;
        BusClient *client;
        int r;

        r = make_event(m);
        if (r < 0)
                return log_error_errno(r, "Failed to make the event loop: %m");

        r = sd_bus_open_system(&bus);
        if (r < 0)
                return log_error_errno(r, "Failed to connect to the system bus: %m");
        r = bus_client_new(m->event, bus, &client);
        sd_bus_unref(bus);
        if (r < 0)
                return log_error_errno(r, "Failed to watch wrennd: %m");

        r = rest_server_new(m->event, client, &arg_config, &m->server);
        if (r < 0)
                return log_error_errno(r, "Failed to make the server: %m");
        r = add_listeners(m->server);
        if (r < 0)
                return r;

        (void) sd_notify(0, "READY=1");
        r = sd_event_loop(m->event);
        if (r < 0)
                return log_error_errno(r, "The event loop failed: %m");
        return 0;
}

int main(int argc, char *argv[]) {
        Main m = {};
        int r;

        log_open("wrenn-restd");
        (void) mallopt(M_ARENA_MAX, 1);
        /* above a session's output buffer, which comes and goes with every exec */
        (void) mallopt(M_TRIM_THRESHOLD, 256 * 1024);

        r = parse_arguments(argc, argv);
        if (r > 0)
                r = run(&m);

        rest_server_free(m.server);
        event_source_free(m.drain_timer);
        sd_event_unref(m.event);
        strv_free(arg_config.gate.hosts);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
