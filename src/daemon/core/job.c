/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What all jobs have in common: names, properties, beginning and end. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/core/job-internal.h"

static const char *const kind_names[_JOB_KIND_MAX] = {
        [JOB_BUILD_TEMPLATE] = "build-template", [JOB_IMPORT_TEMPLATE] = "import-template",
        [JOB_PREPARE_KERNEL] = "prepare-kernel", [JOB_COPY_TO] = "copy-to",
        [JOB_COPY_FROM] = "copy-from",
};

static const char *const state_names[_JOB_STATE_MAX] = {
        [JOB_WAITING] = "waiting",
        [JOB_RUNNING] = "running",
};

const char* job_kind_to_string(JobKind k) {
        assert(k >= 0 && k < _JOB_KIND_MAX);
        return kind_names[k];
}

const char* job_state_to_string(JobState s) {
        assert(s >= 0 && s < _JOB_STATE_MAX);
        return state_names[s];
}

uint32_t job_id(const Job *j) {
        return j->id;
}

const char* job_name(const Job *j) {
        return j->name;
}

JobKind job_kind(const Job *j) {
        return j->kind;
}

JobState job_state(const Job *j) {
        return j->state;
}

const char* job_target(const Job *j) {
        return j->target;
}

const char* job_unit(const Job *j) {
        return strempty(j->unit);
}

double job_progress(const Job *j) {
        return j->progress;
}

uint64_t job_bytes(const Job *j) {
        return j->bytes;
}

const char* job_step(const Job *j) {
        return strempty(j->step_text);
}

uint64_t job_started_usec(const Job *j) {
        return j->started_usec;
}

int job_init(Job *j, Manager *m, const JobOps *ops, JobKind kind, const char *target) {
        *j = (Job) {
                .manager = m, .ops = ops, .id = m->last_job_id + 1, .kind = kind, .target = strdup(target)
        };
        (void) snprintf(j->name, sizeof(j->name), "%u", j->id);
        return j->target ? 0 : -ENOMEM;
}

Job* job_free(Job *j) {
        if (!j)
                return NULL;

        j->ops->done(j);
        if (hashmap_get(j->manager->jobs, j->name) == j)
                (void) hashmap_remove(j->manager->jobs, j->name);

        fault_done(&j->fault);
        free(j->target);
        free(j->unit);
        free(j->step_text);
        free(j);
        return NULL;
}

unsigned job_count(Manager *m, const JobOps *ops) {
        unsigned n = 0;
        Job *j;

        HASHMAP_FOREACH(j, m->jobs)
                n += j->ops == ops;
        return n;
}

int job_register(Job *j, Fault *reterr) {
        Manager *m = j->manager;
        int r;

        r = hashmap_put(m->jobs, j->name, j);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to make a job");
        m->last_job_id = j->id;
        manager_event(m, job_new, j);
        return 0;
}

int job_check_fd(const char *name, int fd, bool write, Fault *reterr) {
        int flags = fcntl(fd, F_GETFL), type = SOCK_STREAM;
        socklen_t n = sizeof(type);
        struct stat st;

        if (flags < 0 || fstat(fd, &st) < 0)
                return fault_set_errno(reterr, -errno, "%s: Failed to look at it", name);
        if (S_ISSOCK(st.st_mode) && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0)
                return fault_set_errno(reterr, -errno, "%s: Failed to look at it", name);
        if ((flags & O_PATH) || (flags & O_ACCMODE) == (write ? O_RDONLY : O_WRONLY) ||
            (!S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode)) || type != SOCK_STREAM)
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "%s: expected a file, pipe or stream socket that can be %s.", name,
                                 write ? "written" : "read");
        return 0;
}

void job_changed(Job *j, const char *const *properties) {
        manager_event(j->manager, job_changed, j, properties);
}

void job_begin(Job *j) {
        static const char *const properties[] = { "Progress", "Step", "State", "Started", NULL };

        j->state = JOB_RUNNING;
        j->started_usec = now_usec(CLOCK_REALTIME);
        log_info("Job %u (%s %s) begins.", j->id, job_kind_to_string(j->kind), j->target);
        job_changed(j, properties);
}

void job_end(Job *j, int r) {
        Manager *m = j->manager;
        const char *result = r >= 0 ? "done" : j->cancelled ? "canceled" : "failed";

        if (r < 0) {
                if (!fault_is_set(&j->fault))
                        (void) fault_set_errno(&j->fault, r, "The job failed");
                log_warning("Job %u (%s %s) %s: %s", j->id, job_kind_to_string(j->kind), j->target, result,
                            j->fault.message);
        } else
                log_info("Job %u (%s %s) is done.", j->id, job_kind_to_string(j->kind), j->target);

        (void) hashmap_remove(m->jobs, j->name);
        manager_event(m, job_removed, j, result, r < 0 ? j->fault.message : "");
        (void) job_free(j);
}

void job_cancel(Job *j) {
        if (j->cancelled)
                return;
        j->cancelled = true;
        j->ops->cancel(j);
}
