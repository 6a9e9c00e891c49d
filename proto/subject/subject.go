// Package subject names the broker subjects of dispatch. Only the leader
// subscribes to them; workers send requests.
package subject

// Subjects, versioned with the messages they carry.
const (
	Claim     = "espalier.v1.claim"     // ClaimRequest -> ClaimReply
	Heartbeat = "espalier.v1.heartbeat" // HeartbeatRequest -> HeartbeatReply
	Report    = "espalier.v1.report"    // ReportRequest -> ReportReply
	// Lead is published, empty, by a replica that begins to answer the others: what was
	// asked of the one before is worth asking again.
	Lead = "espalier.v1.lead"
)
