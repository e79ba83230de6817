/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Jobs that copy: the bytes go from the caller's fd through the capsule's monitor to its agent, or back. */

#include "basic/limits.h"
#include "basic/strings.h"
#include "daemon/core/capsule-files.h"
#include "daemon/core/capsule-transfer.h"
#include "daemon/core/job-internal.h"

typedef struct CopyJob {
        Job job;
        Capsule *capsule; /* pinned */
        CapsuleTransfer *transfer;
} CopyJob;

static CopyJob* COPY_JOB(Job *j) {
        return container_of(j, CopyJob, job);
}

static void copy_job_cancel(Job *j) {
        capsule_transfer_cancel(COPY_JOB(j)->transfer); /* on_ended() follows */
}

static void copy_job_done(Job *j) {
        CopyJob *k = COPY_JOB(j);

        k->transfer = capsule_transfer_free(k->transfer);
        (void) capsule_unref(k->capsule);
}

static const JobOps copy_job_ops = { .cancel = copy_job_cancel, .done = copy_job_done };

static void tell_bytes(Job *j, uint64_t bytes) {
        static const char *const properties[] = { "Bytes", NULL };

        if (bytes <= j->bytes)
                return;
        j->bytes = bytes;
        job_changed(j, properties);
}

static void on_bytes(CapsuleTransfer *t, uint64_t bytes, void *userdata) {
        tell_bytes(&((CopyJob *) userdata)->job, bytes);
}

static void on_ended(CapsuleTransfer *t, uint64_t bytes, int r, const Fault *fault, void *userdata) {
        CopyJob *k = userdata;

        tell_bytes(&k->job, bytes);
        if (r < 0)
                (void) fault_set(&k->job.fault, fault->code, "%s", fault->message);
        job_end(&k->job, r);
}

static const TransferHandlers transfer_handlers = { .on_bytes = on_bytes, .on_ended = on_ended };

static int copy_job_new(Capsule *c, JobKind kind, CopyJob **ret, Fault *reterr) {
        CopyJob *k;

        if (c->manager->stopping)
                return fault_set(reterr, FAULT_BACKEND_UNAVAILABLE, "The service is shutting down.");
        if (job_count(c->manager, &copy_job_ops) >= COPIES_MAX)
                return fault_set(reterr, FAULT_QUOTA_EXCEEDED,
                                 "There are %u copies already; wait or cancel one.", COPIES_MAX);
        k = calloc(1, sizeof(CopyJob));
        if (!k)
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        k->capsule = capsule_ref(c);
        *ret = k;
        if (job_init(&k->job, c->manager, &copy_job_ops, kind, c->id) < 0)
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        return 0;
}

static inline void copy_job_freep(CopyJob **k) {
        if (*k)
                (void) job_free(&(*k)->job);
}

static int copy(Capsule *c, JobKind kind, const char *path, int fd, Job **ret, Fault *reterr) {
        _cleanup_free_ char *request = NULL;
        _cleanup_(copy_job_freep) CopyJob *k = NULL;
        bool to = kind == JOB_COPY_TO;
        int r;

        r = job_check_fd("tar", fd, /* write= */ !to, reterr);
        if (r < 0)
                return r;
        request = capsule_file_request("/files/tar", path, reterr);
        if (!request)
                return fault_errno(reterr->code);
        r = copy_job_new(c, kind, &k, reterr);
        if (r >= 0)
                r = capsule_transfer_start(c,
                                           &(TransferSpec) { .method = to ? "PUT" : "GET",
                                                             .path = request,
                                                             .body_fd = to ? fd : -EBADF,
                                                             .answer_fd = to ? -EBADF : fd,
                                                             .shared = true,
                                                             .bound = true },
                                           &transfer_handlers, k, &k->transfer, reterr);
        if (r >= 0)
                r = job_register(&k->job, reterr);
        if (r < 0)
                return r;
        job_begin(&k->job);
        *ret = &TAKE_PTR(k)->job;
        return 0;
}

int job_copy_to(Capsule *c, int fd, const char *path, Job **ret, Fault *reterr) {
        return copy(c, JOB_COPY_TO, path, fd, ret, reterr);
}

int job_copy_from(Capsule *c, const char *path, int fd, Job **ret, Fault *reterr) {
        return copy(c, JOB_COPY_FROM, path, fd, ret, reterr);
}

Capsule* job_capsule(Job *j) {
        return j->ops == &copy_job_ops ? COPY_JOB(j)->capsule : NULL;
}

void manager_end_copies(Manager *m) {
        Job *j;

        HASHMAP_FOREACH(j, m->jobs) {
                if (j->ops != &copy_job_ops)
                        continue;
                (void) fault_set(&j->fault, FAULT_BACKEND_UNAVAILABLE,
                                 "The service was stopped; copy again once it runs.");
                job_end(j, fault_errno(FAULT_BACKEND_UNAVAILABLE));
        }
}
