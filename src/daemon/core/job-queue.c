/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <fcntl.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/sha256.h"
#include "basic/strings.h"
#include "config.h"
#include "daemon/core/job-internal.h"
#include "daemon/core/template.h"
#include "daemon/core/trash.h"
#include "shared/event.h"
#include "shared/json-field.h"

#define KERNEL_RECORD_MAX  (64 * KIB)
#define ORPHANS_RETRY_USEC (5 * USEC_PER_SEC)

/* --- which runs ------------------------------------------------------------------------------ */

/* The oldest that waits, or one that was cancelled while waiting. */
static TemplateJob* next_job(Manager *m) {
        Job *j, *oldest = NULL;

        HASHMAP_FOREACH(j, m->jobs) {
                if (j->ops != &template_job_ops || j->state != JOB_WAITING)
                        continue;
                if (j->cancelled)
                        return TEMPLATE_JOB(j);
                if (!oldest || j->id < oldest->id)
                        oldest = j;
        }
        return oldest ? TEMPLATE_JOB(oldest) : NULL;
}

static int on_pump(sd_event_source *source, void *userdata) {
        Manager *m = userdata;
        JobQueue *q = m->job_queue;
        TemplateJob *t;

        q->pump = event_source_free(q->pump);
        t = next_job(m);
        if (t && t->job.cancelled) {
                template_job_advance(t, 0); /* ends it, and pumps again */
                return 0;
        }
        if (t && q->ready && !q->running && m->systemd)
                template_job_start(t);
        return 0;
}

void job_queue_pump(Manager *m) {
        int r;

        if (!m->job_queue)
                return;
        r = event_defer(m->event, &m->job_queue->pump, PRIORITY_CLIENT, on_pump, m);
        if (r < 0)
                (void) log_error_errno(r, "Failed to go on with the jobs: %m");
}

static int ensure_queue(Manager *m) {
        if (!m->job_queue)
                m->job_queue = calloc(1, sizeof(JobQueue));
        return m->job_queue ? 0 : -ENOMEM;
}

/* --- new ones -------------------------------------------------------------------------------- */

int job_check_name(Manager *m, JobKind kind, const char *name, bool overwrite, Fault *reterr) {
        const Template *t;

        if (!name_is_valid(name))
                return fault_set(
                                reterr, FAULT_INVALID_ARGS,
                                "The name of a template has 1 to 64 of a-z A-Z 0-9 . _ - and begins with a letter or digit.");
        t = hashmap_get(m->templates, name);
        if (!t)
                return 0;
        if (kind == JOB_BUILD_TEMPLATE && !t->platform)
                return fault_set(reterr, FAULT_ALREADY_EXISTS,
                                 "There is an imported template '%s'; remove it first.", name);
        if (kind == JOB_IMPORT_TEMPLATE && t->platform)
                return fault_set(reterr, FAULT_ALREADY_EXISTS,
                                 "'%s' is a template built from templates.d; use another name.", name);
        if (kind == JOB_IMPORT_TEMPLATE && !overwrite)
                return fault_set(reterr, FAULT_ALREADY_EXISTS, "There is a template '%s' already.", name);
        return 0;
}

static int check_room(Manager *m, JobKind kind, const char *target, Fault *reterr) {
        Job *other;

        if (m->stopping)
                return fault_set(reterr, FAULT_BACKEND_UNAVAILABLE, "The service is shutting down.");
        if (job_count(m, &template_job_ops) >= JOBS_MAX)
                return fault_set(reterr, FAULT_QUOTA_EXCEEDED,
                                 "There are %u jobs already; wait or cancel one.", JOBS_MAX);
        if (kind != JOB_PREPARE_KERNEL && hashmap_size(m->templates_by_id) >= TEMPLATES_MAX)
                return fault_set(reterr, FAULT_QUOTA_EXCEEDED,
                                 "There are %u templates already; remove some.", TEMPLATES_MAX);
        HASHMAP_FOREACH(other, m->jobs)
                if (other->ops == &template_job_ops && streq(other->target, target) &&
                    (kind == JOB_PREPARE_KERNEL) == (other->kind == JOB_PREPARE_KERNEL))
                        return fault_set(reterr, FAULT_INVALID_STATE, "Job %u makes '%s' already.",
                                         other->id, target);
        return 0;
}

static int template_job_new(Manager *m, JobKind kind, const char *target, TemplateJob **ret, Fault *reterr) {
        _cleanup_(template_job_freep) TemplateJob *t = NULL;
        char id[64];
        int r;

        r = check_room(m, kind, target, reterr);
        if (r < 0)
                return r;
        r = ensure_queue(m);
        t = r < 0 ? NULL : calloc(1, sizeof(TemplateJob));
        if (!t)
                return fault_set_errno(reterr, -ENOMEM, "Failed to make a job");
        t->fd = -EBADF;
        r = job_init(&t->job, m, &template_job_ops, kind, target);
        if (r >= 0)
                t->job.unit = strjoin("wrenn-job-", t->job.name, ".service");
        if (kind != JOB_PREPARE_KERNEL)
                t->template_id = id_random("tm", id) < 0 ? NULL : strdup(id);
        if (!t->job.unit || (kind != JOB_PREPARE_KERNEL && !t->template_id))
                return fault_set_errno(reterr, -ENOMEM, "Failed to make a job");

        *ret = TAKE_PTR(t);
        return 0;
}

static int template_job_enqueue(TemplateJob **t, Job **ret, Fault *reterr) {
        Job *j = &(*t)->job;
        int r;

        r = job_register(j, reterr);
        if (r < 0)
                return r;
        *t = NULL;
        job_queue_pump(j->manager);
        if (ret)
                *ret = j;
        return 0;
}

int job_build_template(Manager *m, const char *name, Job **ret, Fault *reterr) {
        _cleanup_free_ char *ours = strjoin(m->lib_dir, "/templates.d");
        const char *const dirs[] = { CONFDIR "/templates.d", ours, NULL };
        _cleanup_(template_job_freep) TemplateJob *t = NULL;
        int r;

        if (!ours)
                return fault_set_errno(reterr, -ENOMEM, "Failed to make a job");
        r = job_check_name(m, JOB_BUILD_TEMPLATE, name, /* overwrite= */ true, reterr);
        if (r >= 0)
                r = template_job_new(m, JOB_BUILD_TEMPLATE, name, &t, reterr);
        if (r >= 0)
                r = template_file_load(dirs, name, &t->file, reterr);
        return r < 0 ? r : template_job_enqueue(&t, ret, reterr);
}

int job_import_template(Manager *m, const char *name, int fd, bool overwrite, Job **ret, Fault *reterr) {
        _cleanup_(template_job_freep) TemplateJob *t = NULL;
        int r;

        r = job_check_name(m, JOB_IMPORT_TEMPLATE, name, overwrite, reterr);
        if (r >= 0)
                r = job_check_fd("fd", fd, /* write= */ false, reterr);
        if (r >= 0)
                r = template_job_new(m, JOB_IMPORT_TEMPLATE, name, &t, reterr);
        if (r < 0)
                return r;

        t->overwrite = overwrite;
        t->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (t->fd < 0)
                return fault_set_errno(reterr, -errno, "Failed to keep the archive");
        return template_job_enqueue(&t, ret, reterr);
}

int job_prepare_kernel(Manager *m, Job **ret, Fault *reterr) {
        _cleanup_(template_job_freep) TemplateJob *t = NULL;
        int r;

        r = template_job_new(m, JOB_PREPARE_KERNEL, "kernel", &t, reterr);
        return r < 0 ? r : template_job_enqueue(&t, ret, reterr);
}

/* --- the kernel ------------------------------------------------------------------------------ */

/* kernels/current/kernel.json, or NULL. */
static json_t* kernel_record(Manager *m) {
        _cleanup_free_ char *text = NULL;
        json_t *record = NULL;
        size_t n;

        /* "current" is a link of ours */
        if (read_file_at(m->state_fd, "kernels/current/kernel.json", KERNEL_RECORD_MAX, &text, &n) < 0)
                return NULL;
        (void) json_parse_text(text, n, &record, /* reterr= */ NULL);
        return record;
}

bool manager_kernel_is_current(Manager *m) {
        _cleanup_free_ char *path = strjoin(m->lib_dir, "/wrenn-agent");
        _cleanup_json_ json_t *record = kernel_record(m);
        _cleanup_close_ int fd = -EBADF;
        char hex[SHA256_HEX_LEN + 1];
        uint8_t digest[SHA256_LEN];
        const char *known;

        known = json_string_value(json_object_get(record, "agent_sha256"));
        fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -ENOMEM;
        if (!known || fd < 0 || sha256_fd(fd, digest) < 0)
                return false;

        hex_encode(digest, sizeof(digest), hex);
        return streq(known, hex);
}

void job_sweep_kernels(Manager *m) {
        _cleanup_close_ int dir_fd = open_dir_at(m->state_fd, "kernels", /* create= */ false, 0);
        struct dirent *de;
        DIR *d;
        int r;

        d = dir_fd < 0 ? NULL : fdopendir(fcntl(dir_fd, F_DUPFD_CLOEXEC, 3));
        if (!d)
                return;
        while ((de = readdir(d))) {
                if (!startswith(de->d_name, ".tmp-"))
                        continue;
                r = trash_put(m->trash, dir_fd, de->d_name, /* durable= */ false);
                if (r < 0)
                        (void) log_warning_errno(r, "Failed to remove '%s', ignoring: %m", de->d_name);
        }
        closedir(d);
}

/* --- start and end of the daemon ------------------------------------------------------------- */

static void on_ready(Manager *m) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_json_ json_t *record = kernel_record(m);

        m->job_queue->ready = true;
        manager_sweep_templates(m);
        job_sweep_kernels(m);
        if ((record || hashmap_size(m->templates) > 0) && !manager_kernel_is_current(m) &&
            job_prepare_kernel(m, NULL, &fault) < 0)
                log_warning("Failed to prepare the guest's kernel with the agent of this version: %s",
                            fault.message);
        job_queue_pump(m);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        Manager *m = userdata;

        (void) manager_start_jobs(m);
        return 0;
}

static void retry_later(Manager *m, int error) {
        int r;

        (void) log_warning_errno(error, "Failed to look for jobs of an earlier life, trying again: %m");
        r = event_timer(m->event, &m->job_queue->retry, ORPHANS_RETRY_USEC, PRIORITY_CLIENT, on_retry, m,
                        "jobs-retry");
        if (r < 0)
                (void) log_error_errno(r, "Failed to set a timer: %m");
}

static void on_orphan_stopped(UnitCall *call, int r, const Fault *fault, void *userdata) {
        Manager *m = userdata;
        JobQueue *q = m->job_queue;

        for (unsigned i = 0; i < JOB_ORPHANS_MAX; i++)
                if (q->stop_calls[i] == call)
                        q->stop_calls[i] = unit_call_free(call);
        if (r < 0)
                log_warning("Failed to stop a job of an earlier life, ignoring: %s",
                            fault ? strempty(fault->message) : "");
        if (--q->n_stopping == 0)
                on_ready(m);
}

static void on_orphans(UnitCall *call, int r, const UnitInfo *units, size_t n_units, void *userdata) {
        Manager *m = userdata;
        JobQueue *q = m->job_queue;

        q->list_call = unit_call_free(q->list_call);
        if (r < 0) {
                retry_later(m, r);
                return;
        }

        for (size_t i = 0; i < n_units && q->n_stopping < JOB_ORPHANS_MAX; i++) {
                log_info("Stopping '%s', a job of an earlier life.", units[i].name);
                r = systemd_stop_unit(m->systemd, units[i].name, on_orphan_stopped, m,
                                      &q->stop_calls[q->n_stopping]);
                if (r < 0)
                        (void) log_warning_errno(r, "Failed to stop '%s', ignoring: %m", units[i].name);
                else
                        q->n_stopping++;
        }
        if (q->n_stopping == 0)
                on_ready(m);
}

int manager_start_jobs(Manager *m) {
        int r;

        r = ensure_queue(m);
        if (r < 0)
                return r;
        return systemd_list_units(m->systemd, "wrenn-job-*.service", on_orphans, m,
                                  &m->job_queue->list_call);
}

void manager_free_jobs(Manager *m) {
        JobQueue *q = m->job_queue;
        Job *j;

        while ((j = hashmap_first(m->jobs)))
                (void) job_free(j);
        if (!q)
                return;

        q->pump = event_source_free(q->pump);
        q->retry = event_source_free(q->retry);
        q->list_call = unit_call_free(q->list_call);
        for (unsigned i = 0; i < JOB_ORPHANS_MAX; i++)
                q->stop_calls[i] = unit_call_free(q->stop_calls[i]);
        free(q);
        m->job_queue = NULL;
}
