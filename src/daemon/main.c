/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * wrennd: puts the layers together. Order of a start: configuration, database, bus, network slots, then the
 * join with what runs already; only when that is done the bus name is taken and READY=1 sent, so that no
 * caller ever sees half of it.
 */

#include <getopt.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>

#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/bus/bus-server.h"
#include "daemon/core/adopt.h"
#include "daemon/core/capsule.h"
#include "daemon/core/job.h"
#include "daemon/core/layer.h"
#include "daemon/core/manager.h"
#include "daemon/host/slot.h"
#include "daemon/host/systemd.h"
#include "shared/event.h"

#define REST_USER "wrenn-rest"

typedef struct Program {
        sd_event *event;
        sd_bus *bus;
        Manager *manager;
        Systemd *systemd;
        BusServer *server;
        LayerCall *layer_call;
        sd_event_source *reload, *exit;
} Program;

static void program_done(Program *p) {
        p->layer_call = layer_call_free(p->layer_call);
        p->server = bus_server_free(p->server);
        p->manager = manager_free(p->manager);
        p->systemd = systemd_free(p->systemd);
        p->reload = event_source_free(p->reload);
        p->exit = event_source_free(p->exit);
        sd_bus_flush_close_unref(p->bus);
        sd_event_unref(p->event);
}

static int log_fault(int r, const Fault *fault, const char *what) {
        if (fault_is_set(fault))
                log_error("%s: %s", what, fault->message);
        else
                (void) log_error_errno(r, "%s: %m", what);
        return r;
}

/* --- PID 1's words --------------------------------------------------------------------------- */

/* systemctl stop of a scope: as its Controller= we are asked to end it. */
static void on_request_stop(Systemd *s, const char *unit, void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Program *p = userdata;
        Capsule *c = manager_find_capsule_by_unit(p->manager, unit);

        if (!c)
                return;
        log_capsule(c->id, LOG_INFO, 0, "Its scope is being stopped.");
        if (capsule_poweroff(c, END_USER, &fault) < 0)
                log_capsule(c->id, LOG_ERR, 0, "Failed to stop it: %s", fault.message);
}

static const SystemdHandlers systemd_handlers = { .on_request_stop = on_request_stop };

/* --- start ----------------------------------------------------------------------------------- */

static void on_default_layer(LayerCall *call, int r, const Fault *fault, void *userdata) {
        Program *p = userdata;

        p->layer_call = layer_call_free(p->layer_call);
        if (r < 0)
                log_warning("Failed to make an empty disk ahead of time, ignoring: %s",
                            fault ? fault->message : "");
}

/* The network and what was left by jobs; a host without one serves all but new capsules. */
static void start_rest(Program *p) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL, layer_fault = FAULT_NULL;
        Manager *m = p->manager;
        int r;

        if (m->slots && slot_pool_start(m->slots, &fault) < 0)
                log_warning("Failed to make network slots ahead of time, ignoring: %s", fault.message);

        r = manager_start_jobs(m);
        if (r < 0)
                (void) log_warning_errno(r, "Failed to start the jobs, ignoring: %m");
        r = manager_start_sweep(m);
        if (r < 0)
                (void) log_warning_errno(r, "Failed to plan sweeps, ignoring: %m");
        if (layer_cache_prepare(m->layers, m->config.default_disk_bytes, on_default_layer, p, &p->layer_call,
                                &layer_fault) < 0)
                log_warning("%s", layer_fault.message);
}

static void on_adopted(Manager *m, int r, unsigned n_adopted, unsigned n_removed, void *userdata) {
        Program *p = userdata;

        if (r >= 0) {
                start_rest(p);
                r = bus_server_take_name(p->server);
        }
        if (r < 0) {
                (void) log_error_errno(r, "Failed to find out what runs already: %m");
                (void) sd_event_exit(p->event, r);
                return;
        }

        log_info("wrennd " WRENN_VERSION " is ready: %u capsules adopted, %u removed.", n_adopted,
                 n_removed);
        (void) sd_notifyf(/* unset_environment= */ false,
                          "READY=1\nSTATUS=%u capsules running (%u adopted, %u removed at the start)",
                          m->n_running, n_adopted, n_removed);
}

static int on_reload(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Program *p = userdata;

        (void) sd_notify(false, "RELOADING=1");
        if (manager_reload(p->manager, &fault) < 0)
                log_error("The configuration stays as it was: %s", fault.message);
        (void) sd_notify(false, "READY=1");
        return 0;
}

/* While the bus is still there: it closes with the end of the loop. */
static int on_loop_exit(sd_event_source *source, void *userdata) {
        Program *p = userdata;

        p->manager->stopping = true;
        manager_end_copies(p->manager);
        return 0;
}

static uid_t rest_uid(void) {
        const struct passwd *pw = getpwnam(REST_USER);

        if (!pw)
                log_warning("There is no user '" REST_USER "'; wrenn-restd will not be trusted.");
        return pw ? pw->pw_uid : UID_UNKNOWN;
}

static int open_bus(Program *p) {
        int r;

        r = sd_bus_open_system_with_description(&p->bus, "wrennd");
        if (r >= 0)
                r = sd_bus_attach_event(p->bus, p->event, PRIORITY_CLIENT);
        if (r >= 0)
                r = sd_bus_set_exit_on_disconnect(p->bus, true);
        if (r >= 0)
                r = systemd_new(p->bus, &systemd_handlers, p, &p->systemd);
        return r < 0 ? log_error_errno(r, "Failed to connect to the system bus: %m") : 0;
}

static void open_slots(Manager *m) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        r = slot_pool_new(m->event,
                          &(SlotPoolConfig) {
                                          .address_pool = m->config.address_pool4,
                                          .n_ready = SLOT_READY_DEFAULT,
                          },
                          &m->slots, &fault);
        if (r < 0)
                (void) log_fault(r, &fault, "Failed to set up the network; capsules cannot be created");
}

static int start(Program *p) {
        _cleanup_(config_done) Config config = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        r = config_load(/* dirs= */ NULL, &config, &fault);
        if (r < 0)
                return log_fault(r, &fault, "Failed to read the configuration");
        r = event_new_main(&p->event);
        if (r < 0)
                return log_error_errno(r, "Failed to make the event loop: %m");
        r = manager_new(p->event, &config, /* paths= */ NULL, &p->manager, &fault);
        if (r < 0)
                return log_fault(r, &fault, "Failed to start");
        r = open_bus(p);
        if (r < 0)
                return r;

        p->manager->systemd = p->systemd;
        open_slots(p->manager);
        r = bus_server_new(p->manager, p->bus, rest_uid(), &p->server);
        if (r < 0)
                return log_error_errno(r, "Failed to export the D-Bus objects: %m");
        r = manager_adopt(p->manager, on_adopted, p, &fault);
        if (r < 0)
                return log_fault(r, &fault, "Failed to load the records");
        r = sd_event_add_signal(p->event, &p->reload, SIGHUP, on_reload, p);
        if (r < 0)
                return log_error_errno(r, "Failed to watch for SIGHUP: %m");
        r = sd_event_add_exit(p->event, &p->exit, on_loop_exit, p);
        if (r >= 0)
                r = sd_event_source_set_priority(p->exit, PRIORITY_EXIT);
        return r < 0 ? log_error_errno(r, "Failed to plan the end: %m") : 0;
}

/* -1: go on; else an exit status. */
static int parse_argv(int argc, char *argv[]) {
        static const struct option options[] = {
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, 'V' },
                {},
        };
        int c;

        while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (c) {
                case 'h':
                        printf("%s\n\nThe daemon that runs Wrenn capsules. It is started by systemd; see wrennd(8) and wrennctl(1).\n\n"
                               "  -h --help     Show this text\n     --version  Show the version\n",
                               argv[0]);
                        return EXIT_SUCCESS;
                case 'V':
                        printf("wrennd " WRENN_VERSION "\n");
                        return EXIT_SUCCESS;
                default:
                        return 2;
                }

        if (optind < argc) {
                fprintf(stderr, "wrennd takes no arguments.\n");
                return 2;
        }
        return -1;
}

int main(int argc, char *argv[]) {
        _cleanup_(program_done) Program p = {};
        sigset_t hangup;
        int r;

        r = parse_argv(argc, argv);
        if (r >= 0)
                return r;

        log_open("wrennd");
        (void) umask(0077);
        (void) sigemptyset(&hangup);
        (void) sigaddset(&hangup, SIGHUP);
        (void) sigaddset(&hangup, SIGPIPE);
        (void) sigprocmask(SIG_BLOCK, &hangup, NULL);

        r = start(&p);
        if (r < 0)
                return EXIT_FAILURE;

        r = sd_event_loop(p.event);
        (void) sd_notify(false, "STOPPING=1");
        if (r < 0)
                (void) log_error_errno(r, "The event loop failed: %m");
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
