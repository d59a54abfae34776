from tests.daemon.live import live
def test_try(page, tmp_path):
    from datetime import datetime, UTC
    now=datetime.now(UTC).isoformat()
    with live(tmp_path) as d, d.client() as c:
        recs=[{"hostname":f"host-{n:04d}","timestamp":now,"os":{"load":[1,2,3],"mem":{"total":100,"free":40}},"agent":{"version":"1.2","interval":60}} for n in range(2000)]
        c.post("/ingest",json=recs)
        page.go(d.url+"/ui")
        page.until("document.querySelectorAll('.fleet tbody tr').length > 5")
        open("/tmp/ui-fleet.png","wb").write(page.shot())
        page.scheme("dark")
        page.go(d.url+"/ui#/events"); page.until("document.querySelectorAll('.event').length > 5")
        open("/tmp/ui-events.png","wb").write(page.shot())
        page.scheme("light")
        page.go(d.url+"/ui#/machine/host/host-0001"); page.until("document.querySelectorAll('.chart path').length > 5")
        open("/tmp/ui-host.png","wb").write(page.shot())
        print(page.requests[:20])
