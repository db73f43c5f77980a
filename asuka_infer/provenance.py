"""What a result's file says about itself in the language other programs read: an XMP packet; standard library only."""

import html
import json

from asuka_infer.run_record import RunRecord

_CODES = "http://cv.iptc.org/newscodes/digitalsourcetype/"

TRAINED_SOURCE = _CODES + "compositeWithTrainedAlgorithmicMedia"
"""IPTC's digital source type of a photograph part of which a trained model made."""

UNTRAINED_SOURCE = _CODES + "compositeSynthetic"
"""IPTC's digital source type of a photograph part of which a program made that learned from no pictures."""

NAMESPACE = "urn:asuka-app:run-record:1"
"""Of our own entries; IPTC's and XMP's have theirs."""


def source_type(record: RunRecord) -> str:
    """IPTC's word for how the picture came to be. Known pixels are always the photograph's, so it is a composite."""
    return TRAINED_SOURCE if record.weights else UNTRAINED_SOURCE


def xmp_packet(record: RunRecord) -> str:
    """The record as an XMP packet: IPTC's digital source type, and every field of ours.

    The same record gives the same text.
    """
    compact = json.dumps(json.loads(record.to_json()), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    software = f"asuka-app {record.versions.get('asuka-app', '')}".strip()
    entries = {
        "Iptc4xmpExt:DigitalSourceType": source_type(record),
        "xmp:CreatorTool": software,
        "asuka:method": record.method,
        "asuka:seed": str(record.seed),
        "asuka:generated": "true",
        "asuka:runRecord": compact,
    }
    attributes = "\n   ".join(f'{name}="{html.escape(value)}"' for name, value in entries.items())
    return f"""<?xpacket begin="\N{ZERO WIDTH NO-BREAK SPACE}" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
   xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
   xmlns:xmp="http://ns.adobe.com/xap/1.0/"
   xmlns:asuka="{NAMESPACE}"
   {attributes}/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
