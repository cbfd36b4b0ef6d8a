/**
 * What the node tells, for the checker of types; docs/http.md says what it means.
 *
 * @typedef {object} NodeView
 * @property {string} node
 * @property {string | null} clientAddress
 * @property {number | null} seenAgoMs
 * @property {number | null} freeBytes
 * @property {number | null} pid
 * @property {string | null} error
 * @property {Array<{ dir: string, reason: string }>} unopened
 *
 * @typedef {object} Sync
 * @property {string} phase
 * @property {number} pass
 * @property {number} copiedBytes
 * @property {number} leftBytes
 * @property {number} bytesPerSecond
 *
 * @typedef {object} MemberView
 * @property {string} node
 * @property {string} role
 * @property {string} state
 * @property {string | null} mode
 * @property {number | null} keys
 * @property {string | null} last
 * @property {number | null} dirtyBytes
 * @property {Sync | null} sync
 * @property {string | null} waits
 * @property {string | null} reason
 * @property {string | null} remedy
 * @property {number | null} repairedBlocks
 *
 * @typedef {object} VolumeView
 * @property {string} volume
 * @property {string} volumeId
 * @property {number} sizeBytes
 * @property {number} epoch
 * @property {string} primary
 * @property {string} verdict
 * @property {string} why
 * @property {MemberView[]} members
 *
 * @typedef {object} ClusterView
 * @property {string} verdict
 * @property {string} answer
 * @property {NodeView[]} nodes
 * @property {VolumeView[]} volumes
 *
 * @typedef {{ perSecond: number, p50Us: number | null, p99Us: number | null }} Timed
 *
 * @typedef {object} VolumeRates
 * @property {string} volume
 * @property {string} volumeId
 * @property {string} kind
 * @property {string} role
 * @property {Timed & { bytesPerSecond: number }} reads
 * @property {Timed & { bytesPerSecond: number }} writes
 * @property {Timed} fsync
 * @property {number} journalBytes
 * @property {number} journalUsedBytes
 * @property {number} inFlight
 *
 * @typedef {object} Rates
 * @property {number} atMs
 * @property {string} node
 * @property {VolumeRates[]} volumes
 * @property {number} eventLoopDelayP99Us
 * @property {number} rssBytes
 *
 * @typedef {object} Dirty
 * @property {number} atMs
 * @property {string} volume
 * @property {string} volumeId
 * @property {string} member
 * @property {number} blocks
 * @property {number} dirtyBlocks
 * @property {number} cellBlocks
 * @property {number[]} cells
 *
 * @typedef {object} Happening
 * @property {number} id
 * @property {number} atMs
 * @property {string} node
 * @property {string} volume
 * @property {string} kind
 * @property {string} text
 * @property {Record<string, any>} fields
 */
export {};
