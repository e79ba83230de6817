/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Jobs: following one to its end with a progress bar on a terminal or a line per step elsewhere; list-jobs,
 * cancel-job. */

#include <signal.h>
#include <stdio.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/ctl.h"
#include "ctl/progress.h"
#include "shared/json-field.h"

#define BAR_WIDTH 30

typedef struct JobWatch {
        const CtlOptions *options;
        char *path;
        const char *copied; /* name of what a copy copies; NULL: another kind of job */
        uint64_t bytes, total_bytes, started_usec;
        double progress;
        char step[128], last_step[128];
        bool ended, bar;
        char result[16];
        char *message;
} JobWatch;

static volatile sig_atomic_t
                interrupted; /* set by SIGINT: the wait below returns and the job is cancelled */

static void on_sigint(int sig) {
        interrupted = 1;
}

static void copy_show(const JobWatch *w) {
        _cleanup_free_ char *line = progress_line(w->copied, w->bytes, w->total_bytes,
                                                  now_usec(CLOCK_MONOTONIC) - w->started_usec);

        if (w->bar && line)
                (void) fprintf(stderr, "\r%s\033[K", line);
}

static void job_show(JobWatch *w) {
        if (w->options->quiet)
                return;
        if (w->copied)
                copy_show(w);
        else if (w->bar) {
                int filled = (int) (w->progress * BAR_WIDTH);

                (void) fprintf(stderr, "\r[%.*s%*s] %3d%% %-40.40s", filled,
                               "##############################", BAR_WIDTH - filled, "",
                               (int) (w->progress * 100), w->step);
        } else if (!streq(w->step, w->last_step)) {
                (void) fprintf(stderr, "%3d%% %s\n", (int) (w->progress * 100), w->step);
                (void) snprintf(w->last_step, sizeof(w->last_step), "%s", w->step);
        }
        (void) fflush(stderr);
}

static int on_properties_changed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_json_ json_t *properties = NULL;
        JobWatch *w = userdata;
        const char *interface;

        if (!w->path || !streq(sd_bus_message_get_path(m), w->path) ||
            sd_bus_message_read(m, "s", &interface) < 0 || !streq(interface, JOB_INTERFACE) ||
            bus_value_to_json(m, &properties) < 0)
                return 0;
        if (json_object_get(properties, "Progress"))
                w->progress = json_number_value(json_object_get(properties, "Progress"));
        if (json_object_get(properties, "Step"))
                (void) snprintf(w->step, sizeof(w->step), "%s", property_string(properties, "Step"));
        if (json_object_get(properties, "Bytes"))
                w->bytes = property_number(properties, "Bytes");
        job_show(w);
        return 0;
}

/* May come before the method's answer is read, so any job's end is kept until we know ours: only one is ours
 * at a time. */
static int on_job_removed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *path, *result, *message;
        JobWatch *w = userdata;
        uint32_t id;

        if (sd_bus_message_read(m, "uoss", &id, &path, &result, &message) < 0 || !w->path ||
            !streq(path, w->path))
                return 0;
        w->ended = true;
        (void) snprintf(w->result, sizeof(w->result), "%s", result);
        (void) free_and_strdup(&w->message, message);
        return 0;
}

/* Jobs do not outlive wrennd, and nobody would tell us of their end. */
static int on_owner_changed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *name, *old_owner, *new_owner;
        JobWatch *w = userdata;

        if (sd_bus_message_read(m, "sss", &name, &old_owner, &new_owner) < 0 || !streq(name, BUS_NAME) ||
            isempty(old_owner))
                return 0;
        w->ended = true;
        (void) snprintf(w->result, sizeof(w->result), "failed");
        (void) free_and_strdup(&w->message, "wrennd ended, and the job with it.");
        return 0;
}

static int job_cancel(Ctl *ctl, const char *path) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        int r;

        r = ctl_method(ctl, path, JOB_INTERFACE, "Cancel", &m);
        return r < 0 ? r : ctl_send(ctl, m, "cancel the job", NULL);
}

static int job_wait(Ctl *ctl, JobWatch *w) {
        bool cancelled = false;
        int r;

        while (!w->ended) {
                r = sd_bus_process(ctl->bus, NULL);
                if (r < 0)
                        return log_error_errno(r, "Lost the bus: %m");
                if (r == 0)
                        (void) sd_bus_wait(ctl->bus, 500 * USEC_PER_MSEC);
                if (interrupted && !cancelled) {
                        cancelled = true;
                        r = job_cancel(ctl, w->path);
                        if (r != 0)
                                return r;
                }
        }
        return 0;
}

static int job_follow(Ctl *ctl, sd_bus_message *m, const char *what, JobWatch *w) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        const char *path;
        int r;

        r = sd_bus_match_signal(ctl->bus, NULL, BUS_NAME, BUS_PATH, MANAGER_INTERFACE, "JobRemoved",
                                on_job_removed, w);
        if (r >= 0)
                r = sd_bus_add_match(ctl->bus, NULL,
                                     "type='signal',sender='" BUS_NAME
                                     "',interface='org.freedesktop.DBus.Properties',"
                                     "member='PropertiesChanged',path_namespace='" BUS_PATH "/job'",
                                     on_properties_changed, w);
        if (r >= 0)
                r = sd_bus_match_signal(ctl->bus, NULL, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                        "org.freedesktop.DBus", "NameOwnerChanged", on_owner_changed, w);
        if (r < 0)
                return log_error_errno(r, "Failed to watch the job: %m");
        r = ctl_send(ctl, m, what, &reply);
        if (r != 0)
                return r;
        r = sd_bus_message_read(reply, "o", &path);
        if (r >= 0)
                r = free_and_strdup(&w->path, path);
        if (r < 0)
                return log_error_errno(r, "Failed to read the answer: %m");
        job_show(w);
        return job_wait(ctl, w);
}

/* 0, EXIT_FAILURE with the reason (owned by the caller), or an exit status after having said why. */
static int job_finish(Ctl *ctl, sd_bus_message *m, const char *what, JobWatch *w, char **ret_reason) {
        struct sigaction action = { .sa_handler = on_sigint };
        int r;

        (void) sigaction(SIGINT, &action, NULL);
        (void) sigaction(SIGTERM, &action, NULL);
        r = job_follow(ctl, m, what, w);
        if (w->bar && w->path && !ctl->options.quiet)
                (void) fputc('\n', stderr);
        if (r == 0 && streq(w->result, "canceled")) {
                log_error("Canceled.");
                r = 128 + SIGINT;
        } else if (r == 0 && !streq(w->result, "done")) {
                *ret_reason = strdup(isempty(w->message) ? "no reason given" : w->message);
                r = *ret_reason ? EXIT_FAILURE : log_error_errno(ENOMEM, "Failed to %s: %m", what);
        }
        free(w->path);
        free(w->message);
        return r;
}

int job_run(Ctl *ctl, sd_bus_message *m, const char *what) {
        JobWatch w = { .options = &ctl->options, .bar = isatty(STDERR_FILENO), .step = "waiting" };
        _cleanup_free_ char *reason = NULL;
        int r;

        r = job_finish(ctl, m, what, &w, &reason);
        if (reason)
                log_error("Failed to %s: %s", what, reason);
        return r;
}

int job_run_copy(Ctl *ctl, sd_bus_message *m, const char *name, uint64_t total_bytes, char **ret_reason) {
        JobWatch w = { .options = &ctl->options,
                       .bar = isatty(STDERR_FILENO),
                       .copied = name,
                       .total_bytes = total_bytes,
                       .started_usec = now_usec(CLOCK_MONOTONIC) };

        return job_finish(ctl, m, "copy", &w, ret_reason);
}

int verb_list_jobs(Ctl *ctl, char **arguments) {
        static const Column columns[] = {
                { "ID", "Id", COLUMN_NUMBER },
                { "KIND", "Kind", COLUMN_TEXT },
                { "TARGET", "Target", COLUMN_TEXT },
                { "STATE", "State", COLUMN_TEXT },
                { "DONE", "Progress", COLUMN_TEXT },
                { "STEP", "Step", COLUMN_TEXT },
                { "STARTED", "Started", COLUMN_TIME },
                { "UNIT", "Unit", COLUMN_TEXT },
                {},
        };
        _cleanup_json_ json_t *rows = NULL;
        int r;

        r = ctl_objects(ctl, JOB_INTERFACE, &rows);
        return r != 0 ? r : table_print(&ctl->options, rows, columns, "job");
}

int verb_cancel_job(Ctl *ctl, char **arguments) {
        _cleanup_free_ char *path = NULL;
        uint32_t id;

        if (parse_u32(arguments[0], &id) < 0) {
                log_error("'%s' is not a job's number: see wrennctl list-jobs.", arguments[0]);
                return EXIT_USAGE;
        }
        path = asprintf_null(BUS_PATH "/job/%" PRIu32, id);
        return path ? job_cancel(ctl, path) : log_error_errno(ENOMEM, "Failed to cancel the job: %m");
}
