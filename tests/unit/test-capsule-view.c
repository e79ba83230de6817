/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/strings.h"
#include "rest/capsule-view.h"
#include "tests/unit/test.h"

TEST(statuses_are_those_of_the_api) {
        static const struct {
                const char *state, *status;
        } cases[] = {
                { "pending", "pending" },  { "starting", "starting" }, { "running", "running" },
                { "pausing", "running" },  { "paused", "paused" },     { "resuming", "paused" },
                { "stopping", "running" }, { "stopped", "stopped" },   { "error", "error" },
                { "new-one", "missing" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                ASSERT_STREQ(capsule_status_from_state(cases[i].state), cases[i].status);
        ASSERT_STREQ(capsule_status_from_state(NULL), "missing");
}

TEST(json) {
        _cleanup_(capsule_view_freep) CapsuleView *v = NULL;

        ASSERT_OK(capsule_view_new("/x", &v));
        v->id = strdup("cl-1");
        v->template = strdup("minimal");
        v->vcpus = 2;
        v->memory_bytes = 512 * MIB;
        v->disk_bytes = 5 * GIB;
        v->created_usec = 1780308000 * USEC_PER_SEC;
        ASSERT_OK(capsule_view_set_state(v, "pending"));
        ASSERT_STREQ(capsule_view_json(v),
                     "{\"id\":\"cl-1\",\"status\":\"pending\",\"template\":\"minimal\",\"vcpus\":2,\"memory_mb\":512,"
                     "\"disk_size_mb\":5120,\"timeout_sec\":0,\"created_at\":\"2026-06-01T10:00:00Z\","
                     "\"last_updated\":\"2026-06-01T10:00:00Z\"}");
        ASSERT_FALSE(capsule_view_is_ended(v));
        ASSERT_FALSE(capsule_view_is_running(v));

        v->host_address = strdup("10.11.0.7");
        v->agent_version = strdup("0.1.0");
        v->isolation = strdup("emulated");
        v->status_message = strdup("It broke.");
        ASSERT_OK(strv_extend(&v->labels, "a=b"));
        v->started_usec = v->last_active_usec = v->last_updated_usec = v->created_usec + USEC_PER_SEC;
        ASSERT_OK(capsule_view_set_state(v, "error"));
        ASSERT_STREQ(capsule_view_json(v),
                     "{\"id\":\"cl-1\",\"status\":\"error\",\"template\":\"minimal\",\"vcpus\":2,\"memory_mb\":512,"
                     "\"disk_size_mb\":5120,\"timeout_sec\":0,\"host_ip\":\"10.11.0.7\","
                     "\"created_at\":\"2026-06-01T10:00:00Z\",\"started_at\":\"2026-06-01T10:00:01Z\","
                     "\"last_active_at\":\"2026-06-01T10:00:01Z\",\"last_updated\":\"2026-06-01T10:00:01Z\","
                     "\"isolation\":\"emulated\",\"metadata\":{\"a\":\"b\",\"agent_version\":\"0.1.0\"},"
                     "\"error_message\":\"It broke.\"}");
        ASSERT_TRUE(capsule_view_is_ended(v));
}
